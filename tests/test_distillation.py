"""The distillation loss against the dense formulas, and the pitfalls of distillation."""

from __future__ import annotations

import math

import pytest
import torch
from distilled import distillation_loss

from tokalign_lab.adaptation.distillation import KeptPredictions, LivePredictions
from tokalign_lab.adaptation.settings import DistillationSettings
from tokalign_lab.errors import InputError

N, D, ROWS, SHARED = 7, 5, 13, 11  # two rows of padding
THREE_ROWS = 4 * ROWS * 3


def tensors(seed: int = 0, grad: bool = True) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(seed)
    states, weight, bias = (torch.randn(*shape, dtype=torch.float64) for shape in ((N, D), (ROWS, D), (ROWS,)))
    for tensor in (states, weight, bias):
        tensor.requires_grad_(grad)
    return states, weight, bias


LABELS = torch.tensor([3, 0, -100, 10, 5, -100, 2])


def kept_of(log_probs: torch.Tensor, k: int, temperature: float) -> KeptPredictions:
    """Return these predictions in the form of the teacher's cache."""
    best = log_probs.topk(k, dim=1)
    rest = torch.logsumexp(log_probs.scatter(1, best.indices, -math.inf) / temperature, dim=1)
    return KeptPredictions(best.indices, best.values, rest)


def teacher_log_probs(seed: int = 1, temperature: float = 1.0) -> torch.Tensor:
    states, weight, bias = tensors(seed, grad=False)
    return torch.log_softmax((states @ weight.T + bias)[:, :SHARED] / temperature, dim=1)


def live(seed: int = 1, rows: int = ROWS) -> LivePredictions:
    states, weight, bias = tensors(seed, grad=False)
    extra = torch.full((rows - ROWS, D), 9.0, dtype=torch.float64)  # values of padding must not matter
    padding = torch.full((rows - ROWS,), 50.0, dtype=torch.float64)
    return LivePredictions(states, torch.cat([weight, extra]), torch.cat([bias, padding]))


def dense(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    settings: DistillationSettings,
    cap: float | None = None,
    distilled: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the formula of the module's docstring from all logits at once."""
    logits = states @ weight.T + bias
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    kept = LABELS >= 0
    next_token = torch.nn.functional.cross_entropy(logits[kept], LABELS[kept], reduction="sum")
    temperature = settings.temperature
    log_s = torch.log_softmax(logits[:, :SHARED] / temperature, dim=1)
    log_t = teacher_log_probs(temperature=temperature)
    if settings.direction == "forward":
        kl = (log_t.exp() * (log_t - log_s)).sum(dim=1)
    else:
        kl = (log_s.exp() * (log_s - log_t)).sum(dim=1)
    if distilled is not None:
        kl = kl * distilled
    return (next_token + settings.weight * temperature**2 * kl[kept].sum()) / kept.sum()


SETTINGS = [
    DistillationSettings(weight, temperature, direction)
    for direction in ("forward", "reverse")
    for weight, temperature in ((1.0, 1.0), (0.3, 2.0))
]


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("settings", SETTINGS)
def test_loss_and_gradients_equal_the_dense_formula(settings: DistillationSettings, cap: float | None) -> None:
    given = tensors()
    made = distillation_loss(
        given[0], given[1], LABELS, live(), settings, SHARED, given[2], cap, chunk_bytes=THREE_ROWS
    )
    wanted = dense(*given, settings, cap)
    assert made.loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    assert made.positions == 5
    scale = settings.weight * settings.temperature**2
    assert made.loss.item() == pytest.approx((made.next_token + scale * made.divergence).item())
    for ours, theirs in zip(torch.autograd.grad(made.loss, given), torch.autograd.grad(wanted, given), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kept", [False, True])
def test_gradients_are_those_of_finite_differences(settings: DistillationSettings, kept: bool) -> None:
    teacher = kept_of(teacher_log_probs(), 4, settings.temperature) if kept else live()

    def loss(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return distillation_loss(
            states, weight, LABELS, teacher, settings, SHARED, bias, cap=3.0, chunk_bytes=THREE_ROWS
        ).loss

    given = tensors()  # by hand: `gradcheck` requests a gradient twice, and this loss returns it only once
    for tensor, gradient in zip(given, torch.autograd.grad(loss(*given), given), strict=True):
        flat, wanted = tensor.detach().view(-1), torch.empty(tensor.numel(), dtype=torch.float64)
        for i in range(len(flat)):
            before = flat[i].item()
            ends = []
            for step in (1e-6, -1e-6):
                flat[i] = before + step
                with torch.no_grad():
                    ends.append(loss(*given).item())
            flat[i] = before
            wanted[i] = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(gradient.view(-1), wanted, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("chunk_rows", [1, 2, 100])
def test_the_size_of_chunks_does_not_matter(chunk_rows: int) -> None:
    states, weight, bias = tensors()
    losses = [
        distillation_loss(states, weight, LABELS, live(), SETTINGS[1], SHARED, bias, chunk_bytes=size).loss.item()
        for size in (4 * ROWS * chunk_rows, 1 << 20)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_padding_rows_of_the_teacher_are_ignored() -> None:
    states, weight, bias = tensors()
    plain, padded = (
        distillation_loss(states, weight, LABELS, live(rows=rows), SETTINGS[0], SHARED, bias).loss.item()
        for rows in (ROWS, ROWS + 20)
    )
    assert plain == padded


def test_ignored_positions_have_no_loss_and_no_gradient() -> None:
    states, weight, bias = tensors()
    made = distillation_loss(states, weight, LABELS, live(), SETTINGS[0], SHARED, bias)
    (gradient,) = torch.autograd.grad(made.loss, states)
    assert (gradient[LABELS == -100] == 0).all()
    assert (gradient[LABELS != -100] != 0).all()
    torch.manual_seed(5)
    with torch.no_grad():
        states[LABELS == -100] = torch.randn(2, D, dtype=torch.float64)
    again = distillation_loss(states, weight, LABELS, live(), SETTINGS[0], SHARED, bias)
    assert again.loss.item() == made.loss.item()


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_divergence_from_itself_is_zero_without_gradient(settings: DistillationSettings) -> None:
    states, weight, bias = tensors()
    log_probs = torch.log_softmax((states @ weight.T + bias)[:, :SHARED], dim=1).detach()
    teachers = {"live": LivePredictions(states, weight, bias), "kept": kept_of(log_probs, 4, settings.temperature)}
    only_text = DistillationSettings(weight=0.0)
    given = (states, weight, bias)
    for teacher in teachers.values():
        plain = distillation_loss(states, weight, LABELS, teacher, only_text, SHARED, bias).loss
        made = distillation_loss(states, weight, LABELS, teacher, settings, SHARED, bias)
        assert abs(made.divergence.item()) < 1e-14
        for ours, theirs in zip(torch.autograd.grad(made.loss, given), torch.autograd.grad(plain, given), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


def test_the_temperature_hardly_changes_the_size_of_the_gradient() -> None:
    # Hinton et al. 2015: the soft gradient shrinks with 1/T^2. Without the factor T^2 this ratio would be near 100.
    states, weight, bias = tensors()
    sizes = []
    for temperature in (10.0, 100.0):
        both = [
            torch.autograd.grad(
                distillation_loss(
                    states, weight, LABELS, live(), DistillationSettings(w, temperature), SHARED, bias
                ).loss,
                states,
            )[0]
            for w in (1.0, 0.0)
        ]
        sizes.append((both[0] - both[1]).norm().item())
    assert sizes[0] / sizes[1] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_cache_omits_only_the_divergence_among_other_tokens(temperature: float) -> None:
    states, weight, bias = tensors()
    settings = DistillationSettings(temperature=temperature)
    whole = distillation_loss(states, weight, LABELS, live(), settings, SHARED, bias).divergence.item()
    log_t = teacher_log_probs(temperature=temperature)
    log_s = torch.log_softmax((states @ weight.T + bias)[:, :SHARED] / temperature, dim=1).detach()
    found = []
    for k in (1, 4, 10):
        kept = kept_of(teacher_log_probs(), k, temperature)
        part = distillation_loss(states, weight, LABELS, kept, settings, SHARED, bias).divergence.item()
        rest = torch.ones_like(log_t, dtype=torch.bool).scatter(1, log_t.topk(k, dim=1).indices, False)
        inside_t, inside_s = (torch.log_softmax(log_p.masked_fill(~rest, -math.inf), dim=1) for log_p in (log_t, log_s))
        inner = (inside_t.exp() * (inside_t - inside_s)).masked_fill(~rest, 0).sum(dim=1)
        mass = log_t.exp().masked_fill(~rest, 0).sum(dim=1)
        left_out = (mass * inner)[LABELS >= 0].mean().item()
        assert part == pytest.approx(whole - left_out, rel=1e-10)
        assert 0 <= part <= whole
        found.append(part)
    assert found == sorted(found)  # the more tokens are cached, the closer


def test_samples_without_distillation_keep_their_next_token_loss() -> None:
    states, weight, bias = tensors()
    distilled = torch.tensor([True, True, True, False, False, True, False])
    made = distillation_loss(
        states, weight, LABELS, live(), SETTINGS[1], SHARED, bias, distilled=distilled, chunk_bytes=THREE_ROWS
    )
    wanted = dense(states, weight, bias, SETTINGS[1], distilled=distilled)
    assert made.loss.item() == pytest.approx(wanted.item(), rel=1e-12)
    for ours, theirs in zip(
        torch.autograd.grad(made.loss, (states, weight)), torch.autograd.grad(wanted, (states, weight)), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_no_gradient_reaches_the_teacher() -> None:
    states, weight, bias = tensors()
    teacher = tensors(1)
    made = distillation_loss(states, weight, LABELS, LivePredictions(*teacher), SETTINGS[0], SHARED, bias)
    made.loss.backward()
    assert all(tensor.grad is None for tensor in teacher)


def test_bfloat16_weights_get_bfloat16_gradients() -> None:
    states, weight, _ = (tensor.detach().bfloat16().requires_grad_() for tensor in tensors())
    teacher = LivePredictions(*(tensor.detach().bfloat16() for tensor in tensors(1)))
    made = distillation_loss(states, weight, LABELS, teacher, SETTINGS[0], SHARED)
    made.loss.backward()
    assert states.grad is not None
    assert states.grad.dtype == weight.grad.dtype == torch.bfloat16
    assert made.loss.dtype == torch.float32


def test_no_tensor_of_all_logits_is_made() -> None:
    n, vocabulary = 64, 5_000
    torch.manual_seed(0)
    states, weight = torch.randn(n, 8, requires_grad=True), torch.randn(vocabulary, 8, requires_grad=True)
    teacher = LivePredictions(torch.randn(n, 8), torch.randn(vocabulary, 8))
    labels = torch.zeros(n, dtype=torch.long)
    largest = 0
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        distillation_loss(
            states, weight, labels, teacher, SETTINGS[0], vocabulary, chunk_bytes=4 * vocabulary * 4
        ).loss.backward()
    largest = max(event.self_cpu_memory_usage for event in profile.function_events)
    assert 0 < largest < 4 * vocabulary * n / 4  # a quarter of all logits; the head's gradient is the largest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight is -1.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"direction": "sideways"}, "no direction 'sideways'"),
    ],
)
def test_invalid_settings_are_refused_in_one_sentence(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DistillationSettings(**options)
