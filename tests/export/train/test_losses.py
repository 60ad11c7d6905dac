"""Stage 1's losses: worked examples, and values and gradients against references written another way."""

import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from dearlite.export.train.losses import RANK_LOSSES, distillation, margin_mse, ranknet, softmax_ce, stage_one_loss  # noqa: E402

NAN = float("nan")


def tensors(logits, labels, mask=None):
    logits = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(logits.shape, dtype=torch.bool) if mask is None else torch.tensor(mask)
    return logits, torch.tensor(labels, dtype=torch.float64), mask


@pytest.fixture
def batch():
    """Five groups of up to six passages with random logits, teacher's scores, lengths and one or two positives."""
    rng = np.random.default_rng(7)
    logits, teacher = rng.normal(0, 3, (5, 6)), rng.normal(0, 4, (5, 6))
    lengths, labels = rng.integers(3, 7, 5), np.zeros((5, 6))
    labels[:, 0] = labels[2, 1] = 1
    mask = np.arange(6) < lengths[:, None]
    return (*tensors(logits, labels, mask), torch.tensor(teacher))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_worked_examples():
    logits, labels, mask = tensors([[2.0, 0.0]], [[1.0, 0.0]])
    assert softmax_ce(logits, labels, mask).item() == pytest.approx(math.log(1 + math.exp(-2)))
    logits, labels, mask = tensors([[1.0, 0.0]], [[1.0, 0.0]])
    assert ranknet(logits, labels, mask).item() == pytest.approx(math.log(1 + math.exp(-1)))
    logits, teacher, mask = tensors([[0.0, 0.0]], [[2.0, 0.0]])
    p = sigmoid(1.0)
    expected = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    assert distillation(logits, teacher, mask, 2.0).item() == pytest.approx(expected)
    assert expected == pytest.approx(0.110944, abs=1e-6)
    logits, teacher, mask = tensors([[1.0, 0.0]], [[4.0, 0.0]])
    assert margin_mse(logits, teacher, mask).item() == 9.0


def test_one_positive_is_torchs_own_cross_entropy(batch):
    logits, labels, mask, _ = batch
    labels = torch.zeros_like(labels)
    labels[:, 0] = 1
    ours = softmax_ce(logits, labels, mask)
    theirs = torch.nn.functional.cross_entropy(logits.masked_fill(~mask, -torch.inf), torch.zeros(5, dtype=torch.long))
    assert ours.item() == pytest.approx(theirs.item())
    one, other = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(one, other)


def test_distillation_is_torchs_own_divergence(batch):
    logits, _, mask, teacher = batch
    ours, parts = distillation(logits, teacher, mask, 2.0), []
    for row in range(5):
        there = mask[row]
        student = (logits[row][there] / 2).log_softmax(-1)
        parts.append(torch.nn.functional.kl_div(student, (teacher[row][there] / 2).softmax(-1), reduction="sum"))
    theirs = torch.stack(parts).mean()
    assert ours.item() == pytest.approx(theirs.item())
    one, other = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("by", ["labels", "teacher"])
def test_ranknet_is_the_sum_over_pairs_and_burges_gradient(batch, by):
    """Burges et al. 2005, by hand: C = ln(1 + e^-(s_i - s_j)), and dC/ds_i = -1 / (1 + e^(s_i - s_j))."""
    logits, labels, mask, teacher = batch
    order = labels if by == "labels" else teacher
    loss, count = 0.0, 0
    gradient = np.zeros((5, 6))
    for row in range(5):
        there = [column for column in range(6) if mask[row, column]]
        for i, j in itertools.permutations(there, 2):
            if order[row, i] > order[row, j]:
                gap = float(logits[row, i] - logits[row, j])
                loss, count = loss + math.log1p(math.exp(-gap)), count + 1
                gradient[row, i] -= sigmoid(-gap)
                gradient[row, j] += sigmoid(-gap)
    ours = ranknet(logits, order, mask)
    assert ours.item() == pytest.approx(loss / count)
    np.testing.assert_allclose(torch.autograd.grad(ours, logits)[0].numpy(), gradient / count, atol=1e-12)


def test_margin_mse_is_the_sum_over_pairs_and_its_gradient(batch):
    """By hand: d/ds_i of ((s_i - s_j) - (t_i - t_j))² is twice what is in the brackets, and the opposite for s_j."""
    logits, _, mask, teacher = batch
    loss, count, gradient = 0.0, 0, np.zeros((5, 6))
    for row in range(5):
        there = [column for column in range(6) if mask[row, column]]
        for i, j in itertools.combinations(there, 2):
            off = float(logits[row, i] - logits[row, j] - teacher[row, i] + teacher[row, j])
            loss, count = loss + off**2, count + 1
            gradient[row, i] += 2 * off
            gradient[row, j] -= 2 * off
    ours = margin_mse(logits, teacher, mask)
    assert ours.item() == pytest.approx(loss / count)
    np.testing.assert_allclose(torch.autograd.grad(ours, logits)[0].numpy(), gradient / count, atol=1e-12)


@pytest.mark.parametrize("name", ["ranknet-teacher", "margin-mse"])
def test_what_the_teacher_alone_teaches_needs_its_scores(batch, name):
    logits, labels, mask, teacher = batch
    none = stage_one_loss(logits, labels, torch.full_like(teacher, NAN), mask, rank_loss=name, alpha=0.0)
    assert none.item() == 0.0


def test_several_positives_do_not_compete_with_each_other():
    logits, labels, mask = tensors([[3.0, 2.0, 0.0]], [[1.0, 1.0, 0.0]])
    expected = (math.log(1 + math.exp(-3)) + math.log(1 + math.exp(-2))) / 2
    assert softmax_ce(logits, labels, mask).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", RANK_LOSSES)
def test_what_is_masked_changes_nothing(batch, name):
    logits, labels, mask, teacher = batch
    before = stage_one_loss(logits, labels, teacher, mask, rank_loss=name)
    gradient = torch.autograd.grad(before, logits)[0]
    assert torch.all(gradient[~mask] == 0) and torch.isfinite(gradient).all()
    changed = logits.detach().masked_fill(~mask, 1e4)
    after = stage_one_loss(changed, labels, teacher.masked_fill(~mask, NAN), mask, rank_loss=name)
    assert after.item() == pytest.approx(before.item())


def test_the_whole_is_the_weighted_sum(batch):
    logits, labels, mask, teacher = batch
    rank, kl = ranknet(logits, labels, mask), distillation(logits, teacher, mask, 2.0)
    whole = stage_one_loss(logits, labels, teacher, mask, rank_loss="ranknet", alpha=0.1, temperature=2.0)
    assert whole.item() == pytest.approx(0.9 * rank.item() + 0.1 * 4 * kl.item())
    assert stage_one_loss(logits, labels, None, mask).item() == pytest.approx(rank.item())
    assert stage_one_loss(logits, labels, teacher, mask, alpha=1.0).item() == pytest.approx(4 * kl.item())
    half = stage_one_loss(logits, labels, teacher, mask, rank_loss="ce+ranknet", alpha=0.0)
    assert half.item() == pytest.approx(0.5 * rank.item() + 0.5 * softmax_ce(logits, labels, mask).item())


def test_a_group_without_scores_counts_by_its_labels_alone(batch):
    logits, labels, mask, teacher = batch
    teacher = teacher.clone()
    teacher[3, 0] = NAN
    others = [0, 1, 2, 4]
    whole = stage_one_loss(logits, labels, teacher, mask, rank_loss="ce", alpha=0.5)
    kl = distillation(logits[others], teacher[others], mask[others], 2.0)
    expected = 0.5 * softmax_ce(logits, labels, mask).item() + 0.5 * 4 * kl.item()
    assert whole.item() == pytest.approx(expected)
    assert torch.isfinite(torch.autograd.grad(whole, logits)[0]).all()
    none = stage_one_loss(logits, labels, torch.full_like(teacher, NAN), mask, rank_loss="ranknet-teacher", alpha=0.5)
    assert none.item() == 0.0


@pytest.mark.parametrize("name", RANK_LOSSES)
def test_gradients_by_finite_differences(batch, name):
    logits, labels, mask, teacher = batch
    assert torch.autograd.gradcheck(
        lambda x: stage_one_loss(x, labels, teacher, mask, rank_loss=name, alpha=0.3), [logits]
    )


def test_the_order_of_passages_does_not_matter(batch):
    logits, labels, mask, teacher = batch
    shuffled = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    for name in RANK_LOSSES:
        before = stage_one_loss(logits, labels, teacher, mask, rank_loss=name)
        after = stage_one_loss(*(one[:, shuffled] for one in (logits, labels, teacher, mask)), rank_loss=name)
        assert after.item() == pytest.approx(before.item())
