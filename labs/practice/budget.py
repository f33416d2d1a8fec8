"""Give each layer 2, 4 or 8 bits: the least noise that a budget buys.

In: what each layer's noise would be at each width, how many weights it has, and the
bits that all weights together may take. Out: the bits of each layer. Chapters 7, 9.
"""


def allocate(noise, counts, budget):
    """The widths that put least noise on the output and fit the budget.

    noise:  {layer: {2: power, 4: power, 8: power}}; powers of layers add up
    counts: {layer: number of weights}
    budget: bits for all weights together; two bits for each always fit
    """
    # All layers alike, as wide as fits. It keeps the budget; you can do better.
    total = sum(counts.values())
    widest = max(bits for bits in (2, 4, 8) if bits * total <= budget)
    return dict.fromkeys(counts, widest)
