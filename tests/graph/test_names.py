"""Free names: the first that nobody has, counted or searched for."""

import onnx_ir as ir

from eightbit.graph import names
from eightbit.graph.model import add_constant
from eightbit.graph.names import Names, counted, unique_name, unique_node_name, unique_stem
from eightbit.graph.source.load import load_graph
from eightbit.graph.source.naming import fill_names
from tests.graph.graphs import graph, normal, parse

BODY = "g (float[N,3] x) => (float[N,3] y) { t = Add(x, w) t_1 = Relu(t) y = Relu(t_1) }"


def net() -> ir.Model:
    return graph(BODY, w=normal(3))


def test_a_free_name_is_beside_inputs_weights_tensors_and_inner_graphs() -> None:
    model = graph(
        "g (bool c, float[3] x) => (float[3] y) { t = Relu(x) "
        "y = If (c) <then_branch = a () => (float[3] u) { u = Neg(t) }, else_branch = b () => (float[3] v)"
        "{ v = Abs(t) }> }"
    )
    found = [unique_name(model.graph, stem) for stem in ("x", "y", "t", "u", "v", "z")]
    assert found == ["x_1", "y_1", "t_1", "u_1", "v_1", "z"]


def test_counting_gives_the_names_that_searching_gives() -> None:
    searched, count = net(), net()
    stems = ["t", "w", "new", "t", "new", "x", "w_1"]
    first = [add_constant(searched.graph, stem, normal(1)).name for stem in stems]
    with counted(count.graph):
        second = [add_constant(count.graph, stem, normal(1)).name for stem in stems]
    assert first == second == ["t_2", "w_1", "new", "t_3", "new_1", "x_1", "w_1_1"]


def test_a_thousand_names_cost_one_look_at_the_graph(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    looks = []
    plain = names.tensor_names
    monkeypatch.setattr(names, "tensor_names", lambda g: looks.append(1) or plain(g))
    model = net()
    with counted(model.graph):
        for _ in range(1000):
            add_constant(model.graph, "t", normal(1))
    assert len(looks) == 1
    unique_name(model.graph, "t")
    assert len(looks) == 2


def test_names_with_a_number_are_not_counted_from_the_start() -> None:
    found = Names(["a", "a_2"])
    assert [found.fresh("a") for _ in range(3)] == ["a_1", "a_3", "a_4"]


def test_a_node_keeps_a_unique_name_even_behind_two_that_share_one() -> None:
    proto = parse("g (float[3] x) => (float[3] y) { a = Relu(x) b = Relu(a) y = Relu(b) }")
    for node, name in zip(proto.graph.node, ("n", "n", "n_1"), strict=True):
        node.name = name
    model = load_graph(proto)
    assert [node.name for node in model.graph] == ["n", "n_2", "n_1"]
    fill_names(model)
    assert [node.name for node in model.graph] == ["n", "n_2", "n_1"]


def test_tensors_and_nodes_have_names_apart() -> None:
    model = net()
    for number, node in enumerate(model.graph):
        node.name = f"n{number}"
    assert [unique_name(model.graph, "n0"), unique_node_name(model.graph, "n0")] == ["n0", "n0_1"]
    assert [unique_name(model.graph, "t"), unique_node_name(model.graph, "t")] == ["t_2", "t"]


def test_a_stem_is_free_with_all_its_endings() -> None:
    model = net()  # it has tensors x, w, t, t_1 and y
    assert unique_stem(model.graph, "t", ("_q", "_1")) == "t_2"
    with counted(model.graph):
        assert [unique_stem(model.graph, "w", ("_q", "_s")) for _ in range(3)] == ["w", "w_2", "w_3"]
        assert unique_name(model.graph, "w_2_q") == "w_2_q_1"


def test_a_clone_counts_for_itself() -> None:
    """It is made while names are counted, and takes the mark over."""
    model = net()
    with counted(model.graph):
        unique_name(model.graph, "new")
        clone = model.clone()
        assert unique_name(clone.graph, "new") == "new"
    add_constant(clone.graph, "new", normal(1))
    assert unique_name(clone.graph, "new") == "new_1"
    with counted(model.graph), counted(model.graph):
        assert [unique_name(model.graph, "new") for _ in range(2)] == ["new", "new_1"]


def test_a_long_stem_keeps_its_end() -> None:
    model, stem = net(), "path/" * 50 + "kernel_q"
    found = [unique_name(model.graph, stem), unique_node_name(model.graph, stem)]
    assert found == [stem[-names.LONGEST :]] * 2
    assert unique_stem(model.graph, stem, ("_s",)) == stem[-names.LONGEST :]
