"""Embeddings reach the model scaled, and zeros, which stand for none, as zeros."""

import torch

import diffusion_labs as dl


class Recorder(dl.ConditionalModule):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(["image_embedding"])
        self.told = []

    def forward(self, x, timestep, conditional_inputs=None):
        self.told.append(self.check_conditions(conditional_inputs, x).get("image_embedding"))
        return dl.DiffusionOutput(x)


def test_each_dimension_has_its_scale_and_none_stays_none() -> None:
    z = torch.tensor([[1.0, -2.0], [0.0, 0.0], [0.0, 3.0]])
    network, x, t = Recorder(), torch.zeros(3, 1, 2, 2), torch.zeros(3)
    model = dl.ScaledEmbedding(network, dl.LatentScale([0.5, 1.0], [2.0, 10.0]))
    guided = dl.CFGuidance(model, {"image_embedding": 0.0}, guidance_scale=3.0).eval()
    guided(x, t, {"image_embedding": z})
    guided(x, t)
    first, second = network.told
    scaled = torch.tensor([[1.0, -30.0], [0.0, 0.0], [-1.0, 20.0]])
    assert {tuple(half.flatten().tolist()) for half in first.chunk(2)} == {tuple(scaled.flatten().tolist()), (0.0,) * 6}
    assert second is None or not second.any()
