"""A recipe that is written reads back equal."""

import pytest

import eightbit as eb
from eightbit.quant.choose.recipe_file import read_recipe
from eightbit.quant.choose.recipe_text import recipe_text, write_recipe
from eightbit.quant.methods.rounding import GPTQ, AdaRound, Nearest


@pytest.mark.parametrize(
    "recipe",
    [
        eb.Recipe(),
        eb.Recipe().settled(True),
        eb.Recipe.plain(),
        eb.Recipe(eb.Weights(bits=4)).settled(True),
        eb.Recipe(weights=eb.Weights(granularity=eb.PerGroup(64), range=eb.MSE()), activations=eb.FLOAT),
        eb.Recipe(
            weights=eb.Weights(bits=4, range=eb.Percentile(99.9), rounding=AdaRound(iterations=50)),
            smooth=0.5,
            overrides={
                "blocks.*": eb.Layer(weights=eb.Weights(bits=4, rounding=GPTQ(damping=0.02))),
                'odd "name" [x]': eb.FLOAT,
                "wide": eb.Layer(weights=eb.FLOAT, activations=eb.Activations(bits=16)),
                "op:Conv": eb.Layer(weights=eb.Weights(bits=3)),
                "a.b": eb.Layer(
                    weights=eb.Weights(rounding=Nearest()), activations=eb.Activations(range=eb.MinMax())
                ),
            },
        ),
    ],
)
def test_a_written_recipe_reads_back_equal(recipe, tmp_path):
    path = write_recipe(recipe, tmp_path / "recipe.toml")
    assert read_recipe(path) == recipe
    assert path.read_text() == recipe_text(recipe)


def test_the_order_of_overrides_which_decides_is_kept(tmp_path):
    overrides = {
        "a*": eb.Layer(weights=eb.Weights(bits=4)),
        "a1": eb.FLOAT,
        "a2": eb.Layer(weights=eb.Weights(bits=2)),
    }
    read = read_recipe(write_recipe(eb.Recipe(overrides=overrides), tmp_path / "r.toml"))
    assert read.keeps_float("a1", "Conv")
    assert read.for_layer("a2", "Conv").weights.bits == 2
