"""Which passes guidance makes: negatives, several conditions, intervals of noise levels, CFG++."""

import pytest
import torch
from torch import Tensor, nn

import diffusion_labs as dl
from diffusion_labs.adapters.guidance import renoising
from tests import catalogue
from tests.adapters.test_cfguidance import Sum, call, unet_with_tokens
from tests.catalogue import SCHEDULES, TinyNetwork

X, T = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
LABELS = torch.tensor([0, 1, 2])


class Counter(nn.Module):
    """Notes the size of the batch of each call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.sizes: list[int] = []

    def forward(self, x: Tensor, timestep: Tensor, conditional_inputs=None) -> dl.DiffusionOutput:
        self.sizes.append(len(x))
        return self.model(x, timestep, conditional_inputs)


def tokens(n: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, n, generator=generator) > 0.3
    mask[:, 0] = True
    return {"text": torch.randn(3, n, 6, generator=generator), "text_mask": mask}


def negative(conditions: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"negative_{key}": value for key, value in conditions.items()}


@pytest.mark.parametrize("lengths", [(4, 4), (4, 7), (5, 2)])
@pytest.mark.parametrize("masked", [True, False])
def test_negative_tokens_of_any_number_take_the_place_of_the_null(lengths: tuple[int, int], masked: bool) -> None:
    """u + s (c - u), with u and c from calls of the network with each of the two alone."""
    network = unet_with_tokens().eval()
    towards, away = tokens(lengths[0], 0), tokens(lengths[1], 1)
    if not masked:
        towards, away = ({"text": value["text"]} for value in (towards, away))
    c, u = (network(X, T, given).prediction for given in (towards, away))
    model = dl.CFGuidance(network, {"text": 0.1}, guidance_scale=3.0).eval()
    guided = model(X, T, towards | negative(away)).prediction
    torch.testing.assert_close(guided, u + 3 * (c - u), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [-2.0, 0.0, 1.0, 5.0])
def test_the_condition_as_its_own_negative_gives_the_conditional_prediction(scale: float) -> None:
    network = unet_with_tokens().eval()
    given = tokens(4, 0) | {"class": LABELS, "image": torch.randn(3, 5)}
    model = dl.CFGuidance(network, {("class", "text", "image"): 0.1}, guidance_scale=scale).eval()
    expected = network(X, T, given).prediction
    torch.testing.assert_close(model(X, T, given | negative(given)).prediction, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("null", [None, torch.randn(6, generator=torch.Generator().manual_seed(2))])
def test_a_negative_alone_is_guided_away_from(null: Tensor | None) -> None:
    network = unet_with_tokens().eval()
    away = tokens(4, 1)
    model = dl.CFGuidance(network, {"text": 0.1}, null=None if null is None else {"text": null}, guidance_scale=3.0)
    c, u = model.eval()(X, T).prediction, network(X, T, away).prediction
    torch.testing.assert_close(model(X, T, negative(away)).prediction, u + 3 * (c - u), rtol=1e-4, atol=1e-4)


def test_a_dropped_condition_becomes_its_negative() -> None:
    negatives = {"negative_class": LABELS.flip(0)}
    for dropout, expected in ((0.0, LABELS), (1.0, LABELS.flip(0))):
        model = dl.CFGuidance(TinyNetwork(), {"class": dropout}).train()
        actual = model(X, T, {"class": LABELS, **negatives}).prediction
        assert torch.equal(actual, model.model(X, T, {"class": expected}).prediction)


def test_negative_tokens_that_cannot_be_padded_are_named() -> None:
    with pytest.raises(ValueError, match=r"\['negative_tokens'\] has shape \[2, 5, 3\].*takes no 'tokens_mask'"):
        call(
            dl.CFGuidance(Sum(), {"tokens": 0.1}, guidance_scale=2.0).eval(),
            tokens=torch.ones(2, 4, 3),
            negative_tokens=torch.ones(2, 5, 3),
        )


def test_one_group_with_a_scale_is_the_plain_number_to_the_bit() -> None:
    model = dl.CFGuidance(TinyNetwork(), {"class": 0.1}, guidance_scale=2.5).eval()
    expected = model(X, T, {"class": LABELS}).prediction
    for scales in ({"class": 2.5}, {("class",): 2.5}):
        model.guidance_scale = scales
        assert torch.equal(model(X, T, {"class": LABELS}).prediction, expected)


def test_several_conditions_are_one_call_of_the_passes_that_count() -> None:
    model = dl.CFGuidance(Sum(), {"class": 0.1, "text": 0.1, "tokens": 0.1}).eval()
    given = {"class": torch.tensor([3, 4]), "text": torch.ones(2, 3), "tokens": torch.ones(2, 2, 2)}

    model.guidance_scale = {"class": 2.0, "text": 3.0}
    output, seen = call(model, **given)
    assert seen["class"].tolist() == [3, 4, 10, 10, 10, 10]
    assert seen["text"][:, 0].tolist() == [0, 0, 1, 1, 0, 0]
    assert torch.equal(seen["tokens"], torch.ones(6, 2, 2))  # has no scale: in every pass
    u, c, text = torch.tensor([[14.0], [14.0]]), torch.tensor([[7.0], [8.0]]), torch.tensor([[17.0], [17.0]])
    torch.testing.assert_close(output.prediction, u + 2 * (c - u) + 3 * (text - u))
    torch.testing.assert_close(output.variance_value, (c + text) / 2 / 100)

    model.guidance_scale = {"class": 0.0, "text": 3.0}  # a weight of 0 has no pass
    assert call(model, **given)[1]["text"][:, 0].tolist() == [1, 1, 0, 0]
    model.guidance_scale = {"class": 0.0, "text": 1.0}  # the only one, of weight 1, is enough
    output, seen = call(model, **given)
    assert seen["class"].tolist() == [10, 10]
    torch.testing.assert_close(output.prediction, torch.tensor([[17.0], [17.0]]))
    del given["text"]  # absent, and so in no pass
    model.guidance_scale = {"class": 2.0, "text": 3.0}
    assert call(model, **given)[1]["class"].tolist() == [3, 4, 10, 10]


def test_scales_of_sets_nest_as_in_instruct_pix2pix() -> None:
    """u + s_I (c_I - u) + s_T (c_IT - c_I) (arXiv 2211.09800, Eq. 3)."""
    network = unet_with_tokens().eval()
    image, text = {"image": torch.randn(3, 5)}, tokens(4, 0)
    s_image, s_text = 1.5, 7.5
    model = dl.CFGuidance(
        network,
        {"image": 0.05, "text": 0.05},
        guidance_scale={"image": s_image - s_text, ("image", "text"): s_text},
    ).eval()
    u, c_image, c_both = (network(X, T, given).prediction for given in ({}, image, image | text))
    expected = u + s_image * (c_image - u) + s_text * (c_both - c_image)
    torch.testing.assert_close(model(X, T, image | text).prediction, expected, rtol=1e-4, atol=1e-4)


def test_a_scale_of_what_is_not_guided_is_named() -> None:
    with pytest.raises(ValueError, match=r"guidance_scale names \['text'\], but only \['class'\] are guided"):
        dl.CFGuidance(Sum(), {"class": 0.1}, guidance_scale={"text": 2.0})


def wrappers(network: nn.Module, interval: dl.GuidanceInterval | None) -> dict[str, nn.Module]:
    weaker = catalogue.randomise(TinyNetwork(), seed=1)
    options = {"interval": interval}
    return {
        "cfg": dl.CFGuidance(network, {"class": 0.1}, null={"class": 3}, guidance_scale=3.0, **options),
        "cfg++": dl.CFGuidancePlusPlus(network, {"class": 0.1}, null={"class": 3}, guidance_scale=0.6, **options),
        "auto": dl.AutoGuidance(network, weaker, guidance_scale=3.0, **options),
        "pag": dl.PerturbedAttentionGuidance(network, guidance_scale=3.0, **options),
    }


@pytest.mark.parametrize("name", ["cfg", "cfg++", "auto", "pag"])
def test_outside_of_the_interval_there_is_one_pass_and_no_guidance(name: str) -> None:
    schedule = SCHEDULES["cosine"]()
    times = torch.arange(0, 1000, 111)
    ratio = (schedule.sigma(times) / schedule.alpha(times)).tolist()
    low, high = ratio[2], ratio[6]  # above the third, up to the seventh
    counter = Counter(TinyNetwork())
    counter.attention_blocks = ("middle",)
    always = wrappers(counter, None)[name].eval()
    model = wrappers(counter, dl.GuidanceInterval(schedule, low=low, high=high))[name].eval()
    for i, t in enumerate(times):
        t, given = t.expand(3), {"class": LABELS}
        inside = 3 <= i <= 6
        expected = (always if inside else counter)(X, t, given)
        counter.sizes.clear()
        actual = model(X, t, given)
        noise = renoising(expected) if name == "cfg++" else None
        torch.testing.assert_close(actual, expected._replace(renoise_prediction=noise), rtol=0, atol=0)
        assert counter.sizes == [3 if name == "auto" or not inside else 6]


@pytest.mark.parametrize("name", ["cfg", "cfg++", "auto", "pag"])
def test_samples_at_different_times_are_each_guided_or_not(name: str) -> None:
    network = TinyNetwork(learned_variance=True)
    interval = dl.GuidanceInterval(SCHEDULES["cosine"](), low=0.5, high=5.0)
    if name == "auto":
        network = TinyNetwork()
    model, always = (wrappers(network, each)[name].eval() for each in (interval, None))
    assert interval(T).tolist() == [False, True, False]
    actual, guided, plain = (m(X, T, {"class": LABELS}) for m in (model, always, network))
    for i, expected in enumerate((plain, guided, plain)):
        torch.testing.assert_close(actual.prediction[i], expected.prediction[i])
        if name == "cfg++":
            renoise = expected.prediction if expected.renoise_prediction is None else expected.renoise_prediction
            torch.testing.assert_close(actual.renoise_prediction[i], renoise[i])
        if name != "auto":
            torch.testing.assert_close(actual.variance_value[i], expected.variance_value[i])


def test_an_interval_reaches_pure_noise_and_clean_data() -> None:
    everywhere = dl.GuidanceInterval(SCHEDULES["zero_terminal_snr"]())
    assert everywhere(torch.tensor([0, 500, 999])).all()
    assert not dl.GuidanceInterval(everywhere.schedule, high=1e9)(torch.tensor([999])).any()


def test_a_sampler_makes_two_passes_inside_of_the_interval_alone() -> None:
    schedule = SCHEDULES["cosine"]()
    counter = Counter(TinyNetwork())
    interval = dl.GuidanceInterval(schedule, low=0.5, high=5.0)
    model = dl.CFGuidance(counter, {"class": 0.1}, null={"class": 3}, guidance_scale=2.0, interval=interval)
    sampler = dl.DDIMSampler(model, schedule, dl.VPredictor(schedule), eval_steps=10, progress_bar=False).eval()
    sampler(X, None, {"class": LABELS})
    assert counter.sizes == [6 if inside else 3 for inside in interval(sampler.times()).tolist()]
    assert 0 < counter.sizes.count(6) < 10


@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0])
def test_cfg_plus_plus_is_the_ddim_step_of_the_paper(scale: float) -> None:
    """Algorithm of CFG++: x0 from u + lambda (c - u), renoised with u; at lambda 1 x0 is the conditional one."""
    schedule = SCHEDULES["linear"]()
    predictor = dl.NoisePredictor(schedule)
    network = TinyNetwork().double()
    model = dl.CFGuidancePlusPlus(network, {"class": 0.1}, guidance_scale=scale)
    sampler = dl.DDIMSampler(model, schedule, predictor, eval_steps=5, progress_bar=False).eval()
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    times = [*sampler.times().tolist(), -1]
    path = list(sampler.generator(x, None, {"class": LABELS}))
    for t, s, actual in zip(times[:-1], times[1:], path, strict=True):
        abar_t, abar_s = (schedule.alpha(torch.tensor(float(u))) ** 2 for u in (t, s))
        eps_c = network(x, torch.full((3,), t), {"class": LABELS}).prediction
        eps_u = network(x, torch.full((3,), t)).prediction
        x0 = (x - (1 - abar_t).sqrt() * (eps_u + scale * (eps_c - eps_u))) / abar_t.sqrt()
        x = abar_s.sqrt() * x0 + (1 - abar_s).sqrt() * eps_u
        torch.testing.assert_close(actual, x, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("outer", [lambda m: dl.Patchify(m, 2), lambda m: dl.InPainting(m, 1), dl.SuperResolution])
def test_pixel_adapters_hand_on_the_prediction_that_gives_the_noise(outer) -> None:
    inputs = {"class": LABELS, "low_resolution": X[:, :, ::2, ::2]}
    inner = {"Patchify": (4, 4), "InPainting": (3, 1), "SuperResolution": (2, 1)}
    probe = type(outer(TinyNetwork())).__name__
    network = TinyNetwork(*inner[probe])
    guidance = dl.CFGuidancePlusPlus(network, {"class": 0.1}, guidance_scale=0.6)
    if probe != "SuperResolution":
        del inputs["low_resolution"]
    output = outer(guidance).eval()(X, T, inputs)
    unconditional = {key: value for key, value in inputs.items() if key != "class"}
    torch.testing.assert_close(output.renoise_prediction, outer(network)(X, T, unconditional).prediction)


def test_only_the_stronger_network_is_trained() -> None:
    strong, weaker = (nn.Sequential(nn.Dropout(0.5)), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    model = dl.AutoGuidance(strong, weaker, guidance_scale=2.0).train()
    assert strong[0].training
    assert not weaker[1].training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model = dl.AutoGuidance(TinyNetwork(), TinyNetwork(), guidance_scale=2.0).train()
    model(X, T, {"class": LABELS}).prediction.sum().backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"model"}
    assert torch.equal(model(X, T).prediction, model.model(X, T).prediction)


def test_a_weaker_network_that_is_the_model_is_refused() -> None:
    network = TinyNetwork()
    with pytest.raises(ValueError, match="shares parameters"):
        dl.AutoGuidance(dl.CFGuidance(network, {"class": 0.1}), network)
