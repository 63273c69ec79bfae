import pytest
import torch
from torch import nn

from sdsnn_lightning.errors import ConfigError
from sdsnn_lightning.losses.bkd import Restoration, blur_mask, blurred_feature_loss


def identity(channels, kernel=3):
    """G that returns what is not negative unchanged."""
    restore = Restoration(channels, kernel)
    for layer in (restore[0], restore[2]):
        nn.init.dirac_(layer.weight)
        nn.init.zeros_(layer.bias)
    return restore


def test_a_mask_blanks_whole_channels_pixels_or_elements_without_scaling():
    feature = torch.ones(200, 30, 4, 5)
    for unit, shape in (("channel", (200, 30, 1, 1)), ("pixel", (200, 1, 4, 5)), ("element", (200, 30, 4, 5))):
        mask = blur_mask(feature, 0.15, unit, torch.Generator().manual_seed(0))
        assert mask.shape == shape
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        # Four standard deviations of a share of 0.15.
        assert mask.mean().item() == pytest.approx(0.85, abs=4 * (0.15 * 0.85 / mask.numel()) ** 0.5)
        again = blur_mask(feature, 0.15, unit, torch.Generator().manual_seed(0))
        assert torch.equal(mask, again)
    assert blur_mask(feature, 0.0).all()
    assert not blur_mask(feature, 1.0).any()
    with pytest.raises(ConfigError, match="ratio: 1.5"):
        blur_mask(feature, 1.5)
    with pytest.raises(ConfigError, match="mask: 'row' is none of channel, pixel, element"):
        blur_mask(feature, 0.5, "row")


def test_restoration_has_the_published_number_of_parameters():
    for channels, count in ((128, 295_168), (256, 1_180_160), (512, 4_719_616)):
        assert sum(p.numel() for p in Restoration(channels).parameters()) == count == 18 * channels**2 + 2 * channels
    assert [type(layer).__name__ for layer in Restoration(2)] == ["Conv2d", "ReLU", "Conv2d"]


def test_the_loss_is_the_sum_over_channels_and_positions_per_sample():
    feature, target = torch.full((2, 3, 2, 2), 0.5), torch.full((2, 3, 2, 2), 0.25)
    mask = torch.ones(2, 3, 1, 1)
    mask[0, 1] = 0
    # Sample 0: 8 elements off by 0.25 and 4 blanked ones off by -0.25; sample 1: 12 off by 0.25.
    assert blurred_feature_loss(feature, target, mask, identity(3)).item() == pytest.approx(24 * 0.0625 / 2)
    assert blurred_feature_loss(target, target, torch.ones(2, 3, 1, 1), identity(3)).item() == 0
    # A vector teacher meets the mean over positions: (0.5 - 0.25)^2 in 5 of 6 channels, 0.25^2 in the blanked one.
    vector = torch.full((2, 3, 1, 1), 0.25)
    assert blurred_feature_loss(feature, vector, mask, identity(3)).item() == pytest.approx(6 * 0.0625 / 2)


def test_blanking_all_leaves_the_student_without_gradient_and_the_biases_with_it():
    feature, target = torch.rand(2, 3, 4, 4, requires_grad=True), torch.rand(2, 3, 4, 4)
    restore = Restoration(3)
    nn.init.constant_(restore[0].bias, 0.1)
    loss = blurred_feature_loss(feature, target, blur_mask(feature, 1.0), restore)
    loss.backward()
    assert not feature.grad.any()
    assert restore[2].bias.grad.any()
    other = blurred_feature_loss(torch.rand(2, 3, 4, 4), target, blur_mask(feature, 1.0), restore)
    assert other.item() == loss.item()


def test_a_vector_needs_only_the_centre_of_the_kernel():
    large, small = Restoration(4, 3), Restoration(4, 1)
    for i in (0, 2):
        small[i].weight.data.copy_(large[i].weight[:, :, 1:2, 1:2])
        small[i].bias.data.copy_(large[i].bias)
    x = torch.randn(5, 4, 1, 1)
    assert torch.allclose(large(x), small(x), atol=1e-6)
