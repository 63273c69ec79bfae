"""Spiking Speech Commands: 35 English words as spikes."""

from typing import Any

from sdsnn_lightning.data.spiking_speech import SpikingSpeech


class SpikingSpeechCommands(SpikingSpeech):
    """Spiking Speech Commands: 35 English words by many speakers, with a validation file of its own.

    SSC (Cramer et al., 2020, arXiv 1910.07407): 75466 recordings for training, 9981 for validation, 20382 for testing,
    split by speaker.
    """

    def __init__(
        self,
        root: str = "data/ssc",
        simulated_root: str = "data/ssc-simulated",
        prefix: str = "ssc",
        time_mask: float = 0.1,
        neuron_mask: int = 10,
        **options: Any,
    ) -> None:
        """Creates the module; the defaults of SSC. See `SpikingSpeech` for all arguments.

        Args:
            root: Folder of the real set.
            simulated_root: Folder of the simulated set; made when missing.
            prefix: First part of the file names: `<prefix>_train.h5`, `<prefix>_valid.h5`, `<prefix>_test.h5`.
            time_mask: Share of the frames that the time mask hides, in [0, 1).
            neuron_mask: One more than the most (grouped) channels that the neuron mask hides.
            options: The other arguments of `SpikingSpeech`.
        """
        super().__init__(root, simulated_root, prefix, "file", time_mask, neuron_mask, **options)
