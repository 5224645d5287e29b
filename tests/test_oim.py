"Identity losses: against loops written out, and the bugs other implementations of OIM are known for."
import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from person_search_nb.distributed import gather_rows
from person_search_nb.oim import CentreLoss, ID_LOSSES, occurrence, OIMLoss, RSSLoss


def unit(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)


def ids(n, low, high, seed=0):
    return torch.randint(low, high, (n,), generator=torch.Generator().manual_seed(seed))


def loop(x, person_id, lut, queue, position, momentum, scale):
    "OIM one row at a time: loss, gradient by x, the new table, queue and position."
    memory = [*lut.clone(), *queue.clone()]
    labelled = max(sum(t >= 0 for t in person_id.tolist()), 1)
    loss, grad, lut, queue = 0., torch.zeros_like(x), lut.clone(), queue.clone()
    for r, t in enumerate(person_id.tolist()):
        if t < 0: continue
        e = [torch.exp(scale * (x[r] @ m)) for m in memory]
        p = [v / sum(e) for v in e]
        loss -= p[t].log() / labelled
        for j, m in enumerate(memory): grad[r] += scale * (p[j] - float(j == t)) * m / labelled
    for r, t in enumerate(person_id.tolist()):
        if t < 0:
            if len(queue): queue[position], position = x[r], (position + 1) % len(queue)
        else:
            v = momentum * lut[t] + (1 - momentum) * x[r]
            lut[t] = v / v.norm()
    return loss, grad, lut, queue, position


@pytest.mark.parametrize('queue_size', [0, 1, 4, 50])
@pytest.mark.parametrize('momentum,scale', [(0.5, 10.), (0.1, 30.), (0.9, 1.)])
def test_loss_gradient_and_buffers_equal_a_loop(queue_size, momentum, scale):
    oim = OIMLoss(6, 5, queue_size=queue_size, momentum=momentum, scale=scale).double()
    lut, queue, position = oim.lut.clone(), oim.queue.clone(), 0
    for step in range(6):
        n = [0, 1, 3, 9, 17, 8][step]
        x, person_id = unit(n, 6, seed=step).requires_grad_(), ids(n, -1, 5, seed=step)
        loss = oim(x, person_id)
        loss.backward()
        slow, grad, lut, queue, position = loop(x.detach(), person_id, lut, queue, position, momentum, scale)
        assert loss.item() == pytest.approx(float(slow), abs=1e-10)
        torch.testing.assert_close(x.grad, grad, atol=1e-10, rtol=0)
        torch.testing.assert_close(oim.lut, lut, atol=1e-12, rtol=0)
        torch.testing.assert_close(oim.queue, queue, atol=1e-12, rtol=0)
        assert oim.position.item() == position


def test_repeated_person_is_updated_row_by_row():
    oim = OIMLoss(4, 2, momentum=0.5).double()
    x = unit(3, 4)
    oim(x, torch.tensor([1, 1, 1]))
    v = torch.zeros(4, dtype=torch.float64)
    for row in x: v = F.normalize(0.5 * v + 0.5 * row, dim=0)
    torch.testing.assert_close(oim.lut[1], v)
    assert not oim.lut[0].any()
    assert occurrence(torch.tensor([5, 2, 5, 5])).tolist() == [0, 0, 1, 2]


def test_more_unlabelled_rows_than_slots_keeps_the_newest():
    oim = OIMLoss(4, 2, queue_size=3).double()
    x = unit(8, 4)
    oim(x, torch.full((8,), -1))
    assert torch.equal(oim.queue, x[[6, 7, 5]]) # slots 0, 1, 2 were written by rows 6, 7 and 5
    assert oim.position.item() == 2


@pytest.mark.parametrize('name', ID_LOSSES)
@pytest.mark.parametrize('rows', [0, 4])
def test_nobody_labelled_costs_nothing_and_has_a_gradient(name, rows):
    loss_fn = ID_LOSSES[name](6, 5)
    x = unit(rows, 6, dtype=torch.float32).requires_grad_()
    loss = loss_fn(x, torch.full((rows,), -1))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros(rows, 6))
    for p in loss_fn.parameters(): assert torch.equal(p.grad, torch.zeros_like(p)) # DistributedDataParallel wants every parameter used


@pytest.mark.parametrize('name', ID_LOSSES)
def test_two_calls_before_backward(name):
    torch.manual_seed(0)
    one_by_one = ID_LOSSES[name](6, 5)
    together = copy.deepcopy(one_by_one)
    xs = [unit(7, 6, seed=s, dtype=torch.float32).requires_grad_() for s in (1, 2)]
    person_id = ids(7, -1, 5)
    alone = []
    for x in xs:
        one_by_one.zero_grad()
        alone.append(torch.autograd.grad(one_by_one(x, person_id), x)[0])
    (together(xs[0], person_id) + together(xs[1], person_id)).backward()
    for x, g in zip(xs, alone): torch.testing.assert_close(x.grad, g, rtol=0, atol=1e-7)
    for a, b in zip(one_by_one.buffers(), together.buffers()): assert torch.equal(a, b)


@pytest.mark.parametrize('name', ID_LOSSES)
def test_logits_survive_an_update_before_backward(name):
    loss_fn = ID_LOSSES[name](6, 5)
    x = unit(4, 6, dtype=torch.float32).requires_grad_()
    loss_fn(x.detach(), torch.tensor([0, 1, 2, -1]))
    logits = loss_fn.logits(x)
    assert logits.shape == (4, 5) and loss_fn.num_ids == 5
    loss_fn(x.detach(), torch.tensor([4, 3, 2, 1]))
    logits.square().sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()


def test_buffers_are_saved_and_come_back_bit_for_bit(tmp_path):
    oim = OIMLoss(6, 5, queue_size=5)
    for step in range(5): oim(unit(7, 6, seed=step, dtype=torch.float32), ids(7, -1, 5, seed=step))
    assert oim.position.item() != 0
    torch.save(oim.state_dict(), tmp_path / 'oim.pt')
    save_file(oim.state_dict(), tmp_path / 'oim.safetensors')
    for state in (torch.load(tmp_path / 'oim.pt', weights_only=True), load_file(tmp_path / 'oim.safetensors')):
        back = OIMLoss(6, 5, queue_size=5)
        back.load_state_dict(state)
        ahead = copy.deepcopy(oim)
        there = back.state_dict()
        for k, v in oim.state_dict().items(): assert torch.equal(there[k], v), k
        x, person_id = unit(9, 6, seed=99, dtype=torch.float32), ids(9, -1, 5, seed=99)
        assert torch.equal(ahead(x, person_id), back(x, person_id))
        there = back.state_dict()
        for k, v in ahead.state_dict().items(): assert torch.equal(there[k], v), k


def test_another_number_of_ids_does_not_load():
    with pytest.raises(RuntimeError, match='size mismatch for lut'):
        OIMLoss(6, 5).load_state_dict(OIMLoss(6, 7).state_dict())


@pytest.mark.parametrize('name', ['oim', 'centre'])
def test_memory_rests_in_eval_mode(name):
    loss_fn = ID_LOSSES[name](6, 5).eval()
    before = copy.deepcopy(loss_fn.state_dict())
    loss_fn(unit(7, 6, dtype=torch.float32), ids(7, -1, 5))
    for k, v in loss_fn.state_dict().items(): assert torch.equal(v, before[k])


@pytest.mark.parametrize('name', ['oim', 'centre'])
@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_a_non_finite_row_does_not_enter_the_memory(name, bad):
    loss_fn = ID_LOSSES[name](6, 5)
    x = unit(3, 6, dtype=torch.float32)
    x[1:, 0] = bad
    loss_fn(x, torch.tensor([0, 1, -1]))
    for k, v in loss_fn.state_dict().items(): assert v.isfinite().all(), k


@pytest.mark.parametrize('name', ID_LOSSES)
@pytest.mark.parametrize('person_id', [5554, -2, 6])
def test_no_magic_ids(name, person_id):
    with pytest.raises(ValueError, match=rf'person_id\[1\] = {person_id} '):
        ID_LOSSES[name](6, 5)(unit(2, 6, dtype=torch.float32), torch.tensor([0, person_id]))


@pytest.mark.parametrize('name', ID_LOSSES)
def test_wrong_shapes_say_so(name):
    with pytest.raises(ValueError, match=r'features \(R, 6\)'):
        ID_LOSSES[name](6, 5)(torch.zeros(2, 7), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r'person_id \(R,\)'):
        ID_LOSSES[name](6, 5)(torch.zeros(2, 6), torch.tensor([0, 1, 2]))


@pytest.mark.parametrize('name', ID_LOSSES)
def test_under_autocast(name):
    torch.manual_seed(0)
    loss_fn = ID_LOSSES[name](16, 5)
    x = unit(8, 16, dtype=torch.float32).bfloat16().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16): loss = loss_fn(x, ids(8, -1, 5))
    loss.backward()
    assert loss.dtype == torch.float32 and x.grad.isfinite().all()


def test_scaled_similarities_keep_their_digits_under_autocast():
    oim = OIMLoss(16, 5).eval()
    oim.lut.copy_(unit(5, 16))
    x = unit(8, 16, seed=3, dtype=torch.float32)
    with torch.autocast('cpu', torch.bfloat16): logits = oim.logits(x)
    torch.testing.assert_close(logits, 30 * x @ oim.lut.T)


# RSS ------------------------------------------------------------------------------------------------------------------

def test_rss_equals_equation_2():
    torch.manual_seed(0)
    rss = RSSLoss(6, 40, k=10).double()
    torch.nn.init.normal_(rss.classifier.weight)
    x, person_id = unit(8, 6).requires_grad_(), torch.tensor([0, 3, 39, 40, -1, 40, 3, 7]) # 40 is the background
    state = torch.get_rng_state()
    loss = rss(x, person_id)
    grad = torch.autograd.grad(loss, x)[0]
    torch.set_rng_state(state)
    known = [r for r in range(8) if person_id[r] >= 0]
    drawn = rss.draw(person_id[known])
    w, b, slow, by_hand = rss.classifier.weight, rss.classifier.bias, 0., torch.zeros(8, 6, dtype=torch.float64)
    for r, classes in zip(known, drawn):
        scores = torch.stack([x[r] @ w[c] + b[c] for c in classes])
        p = scores.exp() / scores.exp().sum()
        slow -= p[0].log() / len(known)
        for q, c in zip(p, classes): by_hand[r] += (q - float(c == person_id[r])) * w[c] / len(known)
    assert loss.item() == pytest.approx(slow.item(), abs=1e-6) # the loss is taken in float32
    torch.testing.assert_close(grad, by_hand, atol=1e-6, rtol=0)


def test_rss_draws_by_the_rules():
    rss = RSSLoss(4, 30, k=8)
    person_id = torch.tensor([0, 29, 30] * 700)
    drawn = rss.draw(person_id, torch.Generator().manual_seed(0))
    assert drawn.shape == (2100, 8)
    assert torch.equal(drawn[:, 0], person_id)              # rule 1
    assert torch.equal(drawn[person_id < 30, 1], torch.full((1400,), 30)) # rule 3: the background second
    assert all(row.unique().numel() == 8 for row in drawn)  # none twice; so the background's own row draws it once (rule 2)
    others = torch.bincount(drawn[person_id == 0, 2:].flatten(), minlength=31).float() / 700
    assert others[0] == others[30] == 0
    torch.testing.assert_close(others[1:30], torch.full((29,), 6 / 29), atol=0.07, rtol=0)


def test_rss_with_every_class_is_softmax():
    rss = RSSLoss(6, 5, k=100)
    x, person_id = unit(8, 6, dtype=torch.float32), ids(8, 0, 6)
    torch.testing.assert_close(rss(x, person_id), F.cross_entropy(rss.classifier(x), person_id))
    torch.testing.assert_close(rss.eval()(x, person_id), F.cross_entropy(rss.classifier(x), person_id))


def test_rss_moves_only_the_drawn_classes():
    rss = RSSLoss(6, 500, k=10)
    rss(unit(2, 6, dtype=torch.float32), torch.tensor([1, 2])).backward()
    moved = rss.classifier.weight.grad.abs().sum(1) > 0
    assert 3 <= moved.sum() <= 19 and moved[[1, 2, 500]].all()
    with pytest.raises(ValueError, match='k = 1'): RSSLoss(6, 5, k=1)


# centre ---------------------------------------------------------------------------------------------------------------

def test_centres_move_by_wens_rule():
    centre = CentreLoss(6, 5, rate=0.5).double()
    centre.centres.copy_(unit(5, 6, seed=1))
    old, x, person_id = centre.centres.clone(), unit(9, 6, seed=2), ids(9, -1, 5, seed=3)
    loss = centre(x, person_id)
    n = (person_id >= 0).sum()
    assert loss.item() == pytest.approx(sum(0.5 * (x[r] - old[t]).square().sum() for r, t in enumerate(person_id) if t >= 0).item() / n.item())
    for j in range(5):
        rows = x[person_id == j]
        torch.testing.assert_close(centre.centres[j], old[j] + 0.5 * (rows - old[j]).sum(0) / (1 + len(rows)))


# several processes ----------------------------------------------------------------------------------------------------

SIZES = [(5, 2), (0, 4), (3, 3), (6, 0)] # rows of rank 0 and 1 in each step


def part(step, rank):
    n = SIZES[step][rank]
    return unit(n, 6, seed=10 * step + rank, dtype=torch.float32), ids(n, -1, 5, seed=10 * step + rank)


def worker(rank, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.set_num_threads(1)
    memories = {name: ID_LOSSES[name](6, 5, **kw) for name, kw in (('oim', dict(queue_size=7)), ('centre', {}))}
    for step in range(len(SIZES)):
        for memory in memories.values(): memory(*part(step, rank))
    rows = gather_rows(torch.full((rank + 1,), rank)) # one row of process 0, two of process 1
    torch.save(dict(rows=rows, **{name: m.state_dict() for name, m in memories.items()}), os.path.join(folder, f'{rank}.pt'))
    dist.destroy_process_group()


def test_two_processes_keep_one_table(tmp_path, process_method):
    torch.multiprocessing.start_processes(worker, (str(tmp_path),), nprocs=2, start_method=process_method)
    first, second = (torch.load(tmp_path / f'{rank}.pt', weights_only=True) for rank in (0, 1))
    assert first['rows'].tolist() == second['rows'].tolist() == [0, 1, 1]
    for name, alone in (('oim', OIMLoss(6, 5, queue_size=7)), ('centre', CentreLoss(6, 5))):
        for step in range(len(SIZES)): # one process with the batches concatenated in order of rank
            alone(*(torch.cat(p) for p in zip(part(step, 0), part(step, 1))))
        for k, v in alone.state_dict().items():
            assert torch.equal(first[name][k], second[name][k]), (name, k)
            assert torch.equal(first[name][k], v), (name, k)
