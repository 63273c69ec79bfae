"""Rule `lemaire`: arithmetic, memory and addressing, after Lemaire et al. 2022 (arXiv 2210.13107, ICONIP 2022).

    E = E_mem + E_ops + E_addr

Every layer has memories of its own: for inputs, outputs, weights and biases, and the membrane potentials. One access to
a word costs more the larger the memory. With `theta` the number of input spikes over all steps, `K` the kernel size,
`S` the stride, `C` the channels and `N` the elements of an input or output, per sample and with the paper's numbers:

* Inputs read: theta with spikes (5), each MAC of a convolution (3), N_in of a linear layer (4).
* Weights read: theta C_out K (7) or theta N_out (8) with spikes, each MAC without (6). Biases: N_out a step (6 to 8).
* Potentials read (9, 10) and written (14, 15): where a spike arrives, theta C_out K or theta N_out, and N_out a step.
* Outputs written: the spikes (13), N_out without (11, 12).
* Operations: theta C_out ceil(K / S) (1) or theta N_out (2) accumulates with spikes, MACs without; an accumulate a bias
  and a step, and one a reset; a MAC a step for the leak.
* Addresses: 2 theta MACs and theta C_out K accumulates (16), or theta N_out accumulates (17), with spikes; N_in +
  N_out + C_out K or N_in + N_out accumulates without.

Provenance. The paper's text could not be read; equations and constants are those of two public implementations that
quote it: the one of the authors' own laboratory (LEAT-EDGE/qualia-plugin-snn, `EnergyEstimationMetric`) and that of
SpikingJelly 2.0 (`op_counter.LemaireEnergyProfiler`). Where they differ, the reading taken here is SpikingJelly's:

* Eq. 2 has `theta N_in N_out` in print; both say that N_in is one factor too many, and leave it out.
* Energy of an access: linear between Horowitz's caches, from nothing at size 0. The laboratory's code has a straight
  line through the same points instead, `1.09e-5 pJ * bits + 13.2 pJ`.
* Addressing of a linear layer without spikes: `N_in + N_out`. The laboratory's code has `N_in N_out`.

Ours: a potential is touched where a synapse reaches it (the layer's row) and once a step (the row of the neurons), so
that rows add up to the whole; an integer k is k spikes; a layer whose input is analogue writes its outputs even where
neurons follow; a normalisation is the bias of the layer it is folded into; in a product of two activations the operand
that does not spike takes the place of the weights; pooling, activations and additions are free.
"""

from itertools import pairwise

from sdsnn_lightning.metrics.layers import LayerOperations

E_ADD = 0.1e-12
"""Energy of a 32-bit integer addition at 45 nm, joules (Horowitz, ISSCC 2014, as the paper takes it)."""
E_MUL = 3.1e-12
"""Energy of a 32-bit integer multiplication at 45 nm, joules (Horowitz, ISSCC 2014, as the paper takes it)."""
WORD_BYTES = 4
"""Bytes of a word: weights, potentials and addresses of spikes are 32 bits wide."""
QUEUE_WORDS = 1000
"""Words of the queue that spikes wait in between two layers (the paper's experiments)."""
CACHES = ((0.0, 0.0), (8 * 1024.0, 10e-12), (32 * 1024.0, 20e-12), (1024 * 1024.0, 100e-12))
"""Bytes of a static memory and joules of one access to it at 45 nm (Horowitz, ISSCC 2014)."""


def access_energy(words: float) -> float:
    """Energy of reading or writing one word, linear between `CACHES` and constant above the largest.

    Args:
        words: Words in the memory.

    Returns:
        Joules.
    """
    size = words * WORD_BYTES
    for (below, low), (above, high) in pairwise(CACHES):
        if size <= above:
            return low + (high - low) * (size - below) / (above - below)
    return CACHES[-1][1]


def lemaire_energy(row: LayerOperations) -> float:
    """Energy of one layer by the rule of this module, joules per sample."""
    if row.op == "neuron":
        return _neurons(row)
    if row.op == "norm":
        return row.outputs * (access_energy(row.parameter_words) + E_ADD)
    if row.op not in ("conv", "linear", "matmul"):
        return 0.0
    bias = row.outputs * (access_energy(row.parameter_words) + E_ADD) if row.bias else 0.0
    return bias + (_dense(row) if row.kind == "analogue" else _spiking(row))


def _spiking(row: LayerOperations) -> float:
    """A layer with weights that spikes arrive at, without its biases."""
    touched = row.events * row.fanout
    memory = row.events * access_energy(QUEUE_WORDS)
    memory += touched * (access_energy(row.parameter_words) + 2 * access_energy(row.output_words))
    operations = row.events * row.strided_fanout * E_ADD
    addressing = touched * E_ADD + (2 * row.events * (E_MUL + E_ADD) if row.op == "conv" else 0.0)
    return memory + operations + addressing


def _dense(row: LayerOperations) -> float:
    """A layer with weights and an analogue input, without its biases."""
    reads = row.macs if row.op == "conv" else row.elements
    memory = reads * access_energy(row.input_words) + row.macs * access_energy(row.parameter_words)
    memory += row.outputs * access_energy(row.output_words)
    return memory + row.macs * (E_MUL + E_ADD) + (row.elements + row.outputs + row.kernel_steps) * E_ADD


def _neurons(row: LayerOperations) -> float:
    """Neurons: every potential is read, leaks and is written once a step; a spike resets it and is queued."""
    spikes = row.rate * row.elements
    memory = 2 * row.elements * access_energy(row.output_words) + spikes * access_energy(QUEUE_WORDS)
    return memory + spikes * E_ADD + (row.elements * (E_MUL + E_ADD) if row.leaky else 0.0)
