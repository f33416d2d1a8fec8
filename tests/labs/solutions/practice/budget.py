"""Greedy steps by noise saved per bit, along the lower convex hull of each layer (Shoham and Gersho 1988)."""


def allocate(noise, counts, budget):
    """From two bits everywhere, each step the best that still fits."""
    plan = dict.fromkeys(counts, 2)
    spent = 2 * sum(counts.values())
    while True:
        steps = [
            ((noise[name][now] - noise[name][bits]) / (bits - now) / counts[name], name, bits)
            for name, now in plan.items()
            for bits in (4, 8)
            if bits > now and spent + counts[name] * (bits - now) <= budget
        ]
        if not steps:
            return plan
        _, name, bits = max(steps)
        spent += counts[name] * (bits - plan[name])
        plan[name] = bits
