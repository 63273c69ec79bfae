"""Spiking Heidelberg Digits: English and German digits as spikes."""

from typing import Any

import numpy as np

from sdsnn_lightning.data.spike_cache import SpikeCache, spike_cache_file
from sdsnn_lightning.data.spiking_speech import SpikingSpeech, Validation
from sdsnn_lightning.data.utterances import languages


class SpikingHeidelberg(SpikingSpeech):
    """Spiking Heidelberg Digits, and every set in its layout.

    SHD (Cramer et al., 2020, arXiv 1910.07407): English and German digits by 12 speakers, 8156 recordings for training
    and 2264 for testing. All of speakers 4 and 5, and one in twenty recordings of the others, are for testing, so that
    accuracy is also given for `speaker/seen` and `speaker/unseen`; and for either language, where both are there.

    The papers pick their checkpoint on the test set. Here some training speakers are held out, unless asked otherwise.
    """

    def __init__(
        self,
        root: str = "data/shd",
        simulated_root: str = "data/shd-simulated",
        prefix: str = "shd",
        validation: Validation = "speakers",
        time_mask: float = 0.2,
        neuron_mask: int = 20,
        **options: Any,
    ) -> None:
        """Creates the module; the defaults of SHD. See `SpikingSpeech` for all arguments.

        Args:
            root: Folder of the real set.
            simulated_root: Folder of the simulated set; made when missing.
            prefix: First part of the file names: `<prefix>_train.h5`, `<prefix>_test.h5`.
            validation: Validate on held-out `speakers`, on a `file` `<prefix>_valid.h5`, or on the `test` file.
            time_mask: Share of the frames that the time mask hides, in [0, 1).
            neuron_mask: One more than the most (grouped) channels that the neuron mask hides.
            options: The other arguments of `SpikingSpeech`.
        """
        super().__init__(root, simulated_root, prefix, validation, time_mask, neuron_mask, **options)

    def setup(self, stage: str) -> None:
        """Splits the recordings, and names the groups. Every process.

        Args:
            stage: Ignored: all parts are cheap.

        Raises:
            DataError: If the files do not go together, or no speaker can be held out.
        """
        speakers = SpikeCache(spike_cache_file(self._files()["train"], self.cache_dir)).speakers
        self.groups = {"speaker": ["seen", "unseen"]} if (speakers >= 0).all() else {}
        super().setup(stage)

    def _group(self, labels: np.ndarray, speakers: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
        """Language of the word, and whether the speaker is one of those trained on."""
        groups = {}
        if "speaker" in self.groups:
            groups["speaker"] = (~np.isin(speakers, known)).astype(np.int64)
        if of_word := languages(self.class_names):
            self.groups["language"] = ["English", "German"]
            groups["language"] = np.array(of_word)[labels]
        return groups
