/* The front page's demo, slider and chapter cards. What they show without this script, or where WebAssembly does not
   run, was stored in demo/stored.js when the page was built. */
"use strict";
(() => {
  const stored = window.eightbitDemo;
  const $ = (id) => document.getElementById(id);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;
  const onChoice = (name, call) => all(`input[name="${name}"]`).forEach((tag) => (tag.onchange = call));
  const KINDS = ["float", "int8"];
  const SIZE = 224;

  // The demo: what is shown of each picture, and the times, in both networks.

  let milliseconds = stored.milliseconds;
  const shown = new Map(stored.photographs.map((p) => [p.name, { float: p.float, int8: p.int8 }]));

  function say() {
    const kind = chosen("kind");
    $("demo").dataset.kind = kind;
    $("demo-bytes").textContent = `${(stored.bytes[kind] / 1e6).toFixed(1)} MB`;
    $("demo-time").textContent = `${milliseconds[kind].toFixed(1)} ms`;
    const same = [...shown.values()].filter((p) => p.float[0][0] === p.int8[0][0]).length;
    $("demo-same").textContent = `${same} of ${shown.size}`;
    for (const figure of all("#demo figure")) {
      for (const tag of figure.querySelectorAll(".answer")) {
        const [index, share] = shown.get(figure.dataset.name)[tag.dataset.kind][0];
        tag.textContent = `${stored.classes[index]} ${Math.round(100 * share)}%`;
      }
    }
  }

  const status = (text) => ($("demo-status").textContent = text);

  function pixels(source, width, height) {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIZE;
    const side = Math.min(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, SIZE, SIZE);
    const rgba = context.getImageData(0, 0, SIZE, SIZE).data;
    const x = new Float32Array(3 * SIZE * SIZE);
    for (let i = 0; i < SIZE * SIZE; i++) {
      for (let c = 0; c < 3; c++) x[c * SIZE * SIZE + i] = (rgba[4 * i + c] - stored.mean) / stored.std;
    }
    return { x, url: canvas.toDataURL("image/jpeg") };
  }

  function best(logits) {
    const top = Math.max(...logits);
    const likely = Array.from(logits, (v) => Math.exp(v - top));
    const sum = likely.reduce((a, b) => a + b);
    const order = [...likely.keys()].sort((a, b) => likely[b] - likely[a]);
    return order.slice(0, 3).map((i) => [i, likely[i] / sum]);
  }

  let networks = null; // {float, int8}: functions from pixels to [answer, milliseconds]

  async function start() {
    if (networks) return networks;
    const folder = new URL("../demo/", document.baseURI);
    status("Loading ONNX Runtime Web…");
    const ort = await import(new URL("ort.wasm.min.mjs", folder));
    ort.env.wasm.wasmPaths = folder.href;
    ort.env.wasm.numThreads = 1;
    const made = {};
    for (const kind of KINDS) {
      status(`Loading the ${kind} network, ${(stored.bytes[kind] / 1e6).toFixed(1)} MB…`);
      const session = await ort.InferenceSession.create(new URL(`${kind}.onnx`, folder).href);
      made[kind] = async (x) => {
        const feeds = { [session.inputNames[0]]: new ort.Tensor("float32", x, [1, 3, SIZE, SIZE]) };
        const begin = performance.now();
        const answer = await session.run(feeds);
        return [best(answer[session.outputNames[0]].data), performance.now() - begin];
      };
    }
    return (networks = made);
  }

  async function answerAll() {
    $("demo-run").disabled = $("demo-own").disabled = true;
    try {
      const nets = await start();
      const taken = { float: [], int8: [] };
      for (const figure of all("#demo figure")) {
        const image = figure.querySelector("img");
        await image.decode();
        const { x } = pixels(image, image.naturalWidth, image.naturalHeight);
        for (const kind of KINDS) {
          status(`Asking the ${kind} network about ${image.alt}…`);
          const [answer, time] = await nets[kind](x);
          shown.get(figure.dataset.name)[kind] = answer;
          taken[kind].push(time);
        }
        say();
      }
      milliseconds = {};
      for (const kind of KINDS) {
        const times = taken[kind].slice(1).sort((a, b) => a - b);
        milliseconds[kind] = times[times.length >> 1];
      }
      say();
      status(`Computed in this browser by ONNX Runtime Web ${stored.runtime}, on one thread of WebAssembly.`);
      $("demo").dataset.live = "yes";
    } catch (error) {
      console.warn(error);
      $("demo").dataset.live = "failed";
      status(`This browser did not run the networks (${error.message}). The answers are the stored ones.`);
    }
    $("demo-run").disabled = $("demo-own").disabled = false;
  }

  async function addOwn() {
    const file = $("demo-own").files[0];
    if (!file) return;
    let picture;
    try {
      picture = await createImageBitmap(file);
    } catch {
      return status(`${file.name} is no picture that this browser can read.`);
    }
    const { url } = pixels(picture, picture.width, picture.height);
    document.querySelector('#demo figure[data-name="own"]')?.remove();
    const figure = all("#demo figure")[0].cloneNode(true);
    figure.dataset.name = "own";
    Object.assign(figure.querySelector("img"), { src: url, alt: "your picture", title: file.name });
    shown.set("own", { float: [[0, 0]], int8: [[0, 0]] });
    document.querySelector("#demo .photographs").prepend(figure);
    await answerAll();
    if ($("demo").dataset.live !== "yes") {
      figure.remove();
      shown.delete("own");
    }
    say();
  }

  onChoice("kind", say);
  say();
  if (!stored.runtime || location.protocol === "file:") {
    const why = stored.runtime
      ? "This page was opened from a file, and browsers run WebAssembly only from a server: make serve."
      : "The npm registry was out of reach when this page was built, so it has no runtime for your browser.";
    status(`${why} Answers and times were stored then (${stored.processor}, one thread).`);
  } else {
    const bytes = (stored.bytes.float + stored.bytes.int8 + stored.runtimeBytes) / 1e6;
    status(
      `Stored answers and times (${stored.processor}, one thread). To compute them here, ${bytes.toFixed(0)} MB are ` +
        "loaded from this site; your own picture does not leave your browser."
    );
    $("demo-run").disabled = $("demo-own").disabled = false;
    $("demo-run").onclick = answerAll;
    $("demo-own").onchange = addOwn;
  }

  // The slider: weights to codes and back, in float32 like the package.

  const bytes = Uint8Array.from(atob(stored.weights.data), (c) => c.charCodeAt(0));
  const weights = new Float32Array(bytes.buffer);
  const largest = weights.reduce((a, w) => Math.max(a, Math.abs(w)), 0);

  function even(x) {
    const whole = Math.floor(x);
    const rest = x - whole;
    return rest < 0.5 || (rest === 0.5 && whole % 2 === 0) ? whole : whole + 1;
  }

  function rounded(bits, share) {
    const most = 2 ** (bits - 1) - 1;
    const scale = Math.fround((largest * share) / 100 / most);
    let signal = 0, noise = 0, clipped = 0;
    for (const w of weights) {
      const step = even(Math.fround(w / scale));
      const code = Math.min(most, Math.max(-most - 1, step));
      clipped += code !== step;
      signal += w * w;
      noise += (Math.fround(code * scale) - w) ** 2;
    }
    return { most, scale, clipped, sqnr: 10 * Math.log10(signal / noise) };
  }

  const BINS = 100, WIDE = 600, HIGH = 180;
  const counts = new Array(BINS).fill(0);
  weights.forEach((w) => counts[Math.min(BINS - 1, Math.floor(((w / largest + 1) / 2) * BINS))]++);
  const at = (w) => ((w / largest + 1) / 2) * WIDE;

  function plot() {
    const [bits, share] = [Number($("slider-bits").value), Number($("slider-share").value)];
    const { most, scale, clipped, sqnr } = rounded(bits, share);
    const peak = Math.log1p(Math.max(...counts));
    const bar = (n, i) => {
      const high = (HIGH * Math.log1p(n)) / peak;
      const middle = ((i + 0.5) / BINS) * 2 * largest - largest;
      const inside = middle >= (-most - 1.5) * scale && middle <= (most + 0.5) * scale;
      const place = `x="${(i * WIDE) / BINS}" y="${HIGH - high}" width="${WIDE / BINS - 1}" height="${high}"`;
      return `<rect class="${inside ? "kept" : "clipped"}" ${place}/>`;
    };
    let marks = "";
    for (let q = -most - 1; q <= most; q++) {
      if (Math.abs(q * scale) <= largest) marks += `M${at(q * scale).toFixed(1)} ${HIGH + 6}v22`;
    }
    $("slider-plot").innerHTML = `${counts.map(bar).join("")}<path class="marks" d="${marks}"/>`;
    $("slider-bits-out").textContent = bits;
    $("slider-share-out").textContent = `${share} %`;
    const lost = clipped ? `${clipped.toLocaleString("en")} weights are clipped` : "no weight is clipped";
    $("slider-says").textContent = `SQNR ${sqnr.toFixed(1)} dB: ${2 * most + 2} codes, ${lost}.`;
  }

  $("slider-bits").oninput = $("slider-share").oninput = plot;
  plot();

  // The cards of the chapters on the chosen path.

  onChoice("path", () => {
    const path = chosen("path");
    all("#paths li").forEach((card) => (card.hidden = !card.dataset.paths.split(" ").includes(path)));
  });

  // For the tests: the same sums that the package stored, and what is shown.
  window.eightbitPage = { rounded, shown };
})();
