from __future__ import annotations

import copy

import torch

from tokalign_lab.adaptation.optimizer import FlooredAdamW


def steps(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter, gradients: list[torch.Tensor]) -> None:
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()


def gradients(n: int, small: float) -> list[torch.Tensor]:
    """Return gradients of 10,000 rows: the first six are in use, the others get a tiny gradient of constant sign."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.full((10_000, 4), small) for _ in range(n)]
    for one in made:
        one[:6] = torch.randn(6, 4, generator=generator)
    return made


def test_rows_in_use_change_as_with_adamw_and_others_by_their_gradient() -> None:
    used, given = torch.arange(6), gradients(5, 1e-4)
    plain, floored = (torch.nn.Parameter(torch.zeros(10_000, 4)) for _ in range(2))
    steps(torch.optim.AdamW([plain], lr=0.1, weight_decay=0.0), plain, given)
    steps(FlooredAdamW([{"params": [floored]}], floored, used, lr=0.1, weight_decay=0.0), floored, given)
    assert torch.allclose(plain[6:], torch.full_like(plain[6:], -0.5), rtol=1e-3), "Adam changes them at the full rate"
    assert 0 < float(-floored[6:].min()) < 2e-4
    assert float(torch.cosine_similarity(floored[:6].flatten(), plain[:6].flatten(), dim=0)) > 0.9


def test_other_weights_equal_adamw_and_a_loaded_state_continues() -> None:
    used, given = torch.arange(6), gradients(6, 1e-3)
    head, other, alone = (torch.nn.Parameter(torch.ones(10_000, 4)) for _ in range(3))

    def make(head: torch.nn.Parameter, other: torch.nn.Parameter) -> FlooredAdamW:
        return FlooredAdamW([{"params": [other]}, {"params": [head], "lr": 0.2}], head, used, lr=0.1, weight_decay=0.1)

    optimizer, plain = make(head, other), torch.optim.AdamW([alone], lr=0.1, weight_decay=0.1)
    for gradient in given[:3]:
        for weight in (head, other, alone):
            weight.grad = gradient.clone()
        optimizer.step()
        plain.step()
    assert torch.equal(other, alone)
    again = [torch.nn.Parameter(weight.detach().clone()) for weight in (head, other)]
    resumed = make(*again)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(optimizer, head, given[3:])
    steps(resumed, again[0], given[3:])
    assert torch.equal(head, again[0])
