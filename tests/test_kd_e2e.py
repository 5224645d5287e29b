"A teacher's table stays frozen, through training, files and resumed runs; a detector's advice equals its formulas and reaches the student alone."
import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from person_search_nb.distributed import spawn
from person_search_nb.oim import OIMLoss
from person_search_nb.systems import imprint, mean_embeddings
from person_search_nb.model_files import save_model
from person_search_nb.settings import TrainConfig
from person_search_nb.training import train
from person_search_nb.distillation import Distillation
from person_search_nb.kd_e2e import bounded_boxes, DetectorDistillation, freeze_table, hint_loss
from person_search_nb.kd_e2e import record_anchors, soft_scores, teacher_table
from person_search_nb.models import build_model, load_model

pytestmark = pytest.mark.usefixtures('no_curves')
IDS = 6


def net(trunk='resnet18', seed=0, **kw):
    torch.manual_seed(seed)
    return build_model('oim', IDS, width=0.125, trunk=trunk, **dict(dim=24, rpn_channels=16, proposals=(20, 10)) | kw)


def scene(k, size=(96, 128)):
    draw = torch.Generator().manual_seed(k)
    image = torch.rand(3, 6, 8, generator=draw).repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :size[0], :size[1]]
    boxes = torch.tensor([[8., 10, 40, 88], [60, 6, 98, 92], [90, 20, 120, 80]])[:1 + k % 3]
    return image, dict(boxes=boxes, person_id=torch.tensor([k % 4, -1, (k + 1) % 4])[:len(boxes)])  # 4 and 5 never occur


SCENES = [scene(k) for k in range(6)]
EMPTY = SCENES[0][0], dict(boxes=torch.zeros(0, 4), person_id=torch.zeros(0, dtype=torch.int64))


class Data(list):
    "As much of a `SceneDataset` as the trainer asks for."
    names = [f'scene {k}' for k in range(6)]
    @property
    def scenes(self): return [SimpleNamespace(person_id=t['person_id'].numpy()) for _, t in list(self)]
    def item(self, i): return (self[i[0]][0] * 255).byte(), self[i[0]][1]


def batch(*ks): return map(list, zip(*(SCENES[k] for k in ks)))


def step(model, opt, *ks):
    losses = model(*batch(*ks))
    opt.zero_grad()
    sum(losses.values()).backward()
    opt.step()
    return losses


# the table ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', [dict(), dict(trunk='resnet50'), dict(id_loss='softmax', dim=None)])
@pytest.mark.parametrize('batch_size', [1, 4, 10])
def test_table_equals_a_loop(kind, batch_size):
    teacher = net(**kind).train()
    teacher.blocks[0].eval()
    modes = [m.training for m in teacher.modules()]
    table = teacher_table(teacher, SCENES, batch_size=batch_size, progress=False)
    assert modes == [m.training for m in teacher.modules()]
    rows, lengths = [[] for _ in range(IDS)], []
    with torch.no_grad():
        teacher.eval()
        for image, t in SCENES:
            x, _ = teacher.batch([image])
            for box, person in zip(t['boxes'], t['person_id'].tolist()):
                if person < 0: continue
                e = teacher.head(teacher.trunk(x), [box[None]]).embedding[0]
                rows[person].append(e / e.norm()); lengths.append(e.norm())
    for row, views in zip(table, rows): torch.testing.assert_close(row, F.normalize(sum(views), dim=0) if views else torch.zeros_like(row), atol=1e-5, rtol=0)
    assert not table[4:].any() and table[:4].any(1).all()
    torch.testing.assert_close(mean_embeddings(teacher, SCENES, IDS, progress=False)[1], torch.stack(lengths).mean(), atol=1e-5, rtol=1e-5)


def test_table_and_imprinting_are_the_same_means():
    teacher = net()
    table = teacher_table(teacher, SCENES, progress=False)
    imprint(teacher, SCENES, progress=False)
    assert torch.equal(teacher.id_loss.lut, table) and not teacher.id_loss.frozen.any()


def test_teacher_of_other_people():
    teacher = net()
    assert teacher_table(teacher, SCENES, num_ids=40, progress=False).shape == (40, 24)
    with pytest.raises(ValueError, match='person 3; there should be 2 identities'): teacher_table(teacher, SCENES, num_ids=2, progress=False)


def test_errors_of_table():
    with pytest.raises(ValueError, match='detector alone'): teacher_table(net(id_loss='none'), SCENES, progress=False)
    with pytest.raises(ValueError, match='nobody in these scenes'): teacher_table(net(), [EMPTY], progress=False)
    table = teacher_table(net(), SCENES, progress=False)
    with pytest.raises(ValueError, match='build the student with dim=24'): freeze_table(net(dim=16), table)
    with pytest.raises(ValueError, match='num_ids=6'): freeze_table(net(), table[:4])
    with pytest.raises(ValueError, match="SoftmaxLoss; build it with id_loss='oim'"): freeze_table(net(id_loss='softmax'), table)
    with pytest.raises(ValueError, match='NoneType'): freeze_table(net(id_loss='none'), table)
    with pytest.raises(ValueError, match='finite'): freeze_table(net(), table * math.nan)


def test_frozen_rows_stay_and_the_queue_moves():
    student = freeze_table(net(seed=1), 3 * teacher_table(net(), SCENES, progress=False)).train()  # any length will do
    lut = student.id_loss.lut.clone()
    torch.testing.assert_close(lut[:4].norm(dim=1), torch.ones(4))
    opt = torch.optim.SGD(student.parameters(), 0.01)
    for k in range(4): step(student, opt, k, k + 1)
    assert torch.equal(student.id_loss.lut, lut)
    assert student.id_loss.position > 0 and student.id_loss.queue[:int(student.id_loss.position)].any(1).all()


def test_unseen_identities_learn_as_ever():
    frozen, free = OIMLoss(8, 5, queue_size=3), OIMLoss(8, 5, queue_size=3)
    for oim in (frozen, free): oim.lut.copy_(F.normalize(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)), dim=1))
    frozen.frozen[:3] = True
    lut = frozen.lut.clone()
    x = F.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    ids = torch.tensor([0, 3, -1, 4, 3, 2, -1])
    assert torch.equal(frozen(x, ids), free(x, ids))               # the same loss
    assert torch.equal(frozen.lut[:3], lut[:3]) and torch.equal(frozen.lut[3:], free.lut[3:])
    assert torch.equal(frozen.queue, free.queue) and frozen.position == free.position == 2
    assert not torch.equal(free.lut[0], lut[0])
    assert not torch.equal(frozen.lut[3], lut[3])


def test_files_keep_it_frozen(tmp_path):
    student = freeze_table(net(seed=1), teacher_table(net(), SCENES, progress=False)).train()
    student(*batch(0, 1))
    save_model(student, tmp_path / 'student.safetensors')
    again = load_model(tmp_path / 'student.safetensors').train()
    assert again.state_dict().keys() == student.state_dict().keys()
    there = again.state_dict()
    for k, v in student.state_dict().items(): assert torch.equal(there[k], v) and there[k].dtype == v.dtype, k
    for model in (student, again):
        torch.manual_seed(0)
        model(*batch(1, 2))
    for a, b in zip(student.buffers(), again.buffers()): assert torch.equal(a, b)
    assert again.id_loss.frozen.tolist() == [True] * 4 + [False] * 2


CONFIG = TrainConfig(epochs=2, batch_size=2, warmup=0, flip=0., device='cpu', precision='fp32', lr=0.01, checkpoint_every=2)


class Stop(Exception): pass


def broken_run(model, out, after, config=CONFIG):
    "Train until a scene cannot be read any more."
    class Short(Data):
        def __getitem__(self, i):
            self.left -= 1
            if self.left < 0: raise Stop
            return super().__getitem__(i)
    data = Short(SCENES)
    data.left = 2 * after
    with pytest.raises(Stop): train(model, data, config, out, progress=False)


@pytest.mark.parametrize('kind', ['table', 'detector', 'table+detector'])
def test_resumed_run_equals_an_unbroken_one(kind, tmp_path):
    def make(table=True):
        student = net(seed=1)
        if 'table' in kind and table: freeze_table(student, teacher_table(net(), SCENES, progress=False))
        torch.manual_seed(2)
        return DetectorDistillation(net('resnet50', seed=3, id_loss='none'), student) if 'detector' in kind else student
    whole, parts = make(), make()
    history = train(whole, Data(SCENES), CONFIG, tmp_path / 'whole', progress=False)
    broken_run(parts, tmp_path / 'parts', 4)
    parts = make(table=False)                                     # the checkpoint alone says what is frozen
    if 'detector' in kind: nn.init.zeros_(parts.adapter.weight)   # and what the adapter has learned
    again = train(parts, Data(SCENES), CONFIG, tmp_path / 'parts', progress=False)
    assert [{k: v for k, v in r.items() if k != 'seconds'} for r in history] == [{k: v for k, v in r.items() if k != 'seconds'} for r in again]
    there = parts.state_dict()
    for k, v in whole.state_dict().items(): assert torch.equal(there[k], v), k
    learner = getattr(parts, 'student', parts)
    assert learner.id_loss.frozen.sum() == (4 if 'table' in kind else 0)
    kept = load_model(tmp_path / 'parts' / 'model.safetensors')   # the student alone, without the adapter
    there = kept.state_dict()
    for k, v in learner.state_dict().items(): assert torch.equal(there[k], v), k


def test_checkpoint_of_another_wrapper_is_refused(tmp_path):
    train(net(), Data(SCENES), CONFIG, tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"made with another kind \(None there, 'DetectorDistillation' here\)"):
        train(DetectorDistillation(net('resnet50', id_loss='none'), net()), Data(SCENES), CONFIG, tmp_path, progress=False)


def test_running_mean_keeps_the_table(tmp_path):
    student = freeze_table(net(seed=1), teacher_table(net(), SCENES, progress=False))
    lut = student.id_loss.lut.clone()
    train(student, Data(SCENES), replace(CONFIG, ema=0.5), tmp_path, progress=False)
    assert torch.equal(student.id_loss.lut[:4], lut[:4]) and student.id_loss.frozen[:4].all()


# the detector ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('background', [1., 1.5, 4.])
def test_soft_scores_equal_the_formula(background):
    s, t = torch.randn(9, dtype=torch.float64, requires_grad=True), torch.randn(9, dtype=torch.float64, requires_grad=True)
    loss = soft_scores(s, t, background)
    p, q = s.sigmoid().tolist(), t.sigmoid().tolist()
    assert loss.item() == pytest.approx(sum(-(b * math.log(a) + background * (1 - b) * math.log(1 - a)) for a, b in zip(p, q)) / 9)
    loss.backward()
    torch.testing.assert_close(s.grad, torch.tensor([a * (b + background * (1 - b)) - b for a, b in zip(p, q)], dtype=torch.float64) / 9)
    assert t.grad is None
    assert soft_scores(torch.tensor([200., -200.]), torch.tensor([-200., 200.])).isfinite()  # sure, and wrong
    with pytest.raises(ValueError, match='same anchors or regions'): soft_scores(s, t[:3])


def test_bounded_boxes_are_free_beyond_the_margin():
    goals = torch.zeros(4, 4)
    teacher = torch.tensor([[1., 0, 0, 0]]).expand(4, 4)
    student = torch.tensor([[0.5, 0, 0, 0], [0.8, 0, 0, 0], [1., 0, 0, 0], [1.5, 0, 0, 0]]).requires_grad_()   # squared errors .25 .64 1 2.25
    for margin, paying in ((0., [3]), (0.1, [2, 3]), (0.4, [1, 2, 3]), (0.8, [0, 1, 2, 3])):
        loss = bounded_boxes(student, teacher, goals, 10, margin)
        assert loss.item() == pytest.approx(sum([.25, .64, 1., 2.25][k] for k in paying) / 10)
        grad, = torch.autograd.grad(loss, student)
        assert grad.any(1).nonzero()[:, 0].tolist() == paying
        torch.testing.assert_close(grad[paying], 2 * student[paying].detach() / 10)


def test_hint_equals_the_formula():
    a, b = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    assert hint_loss(a, b).item() == pytest.approx(((a - b) ** 2).mean().item(), rel=1e-5)
    with pytest.raises(ValueError, match='same stride'): hint_loss(a, b[..., :3])


@pytest.fixture
def pair():
    torch.manual_seed(5)
    student = freeze_table(net(seed=1), teacher_table(net(), SCENES, progress=False))
    teacher = net('resnet50', seed=3, id_loss='none').train()
    with torch.no_grad():
        for _ in range(3): teacher(*batch(0, 1, 2))                # statistics that are not the initial ones
    for layer in (teacher.score, teacher.deltas, teacher.rpn.objectness, teacher.rpn.deltas): nn.init.normal_(layer.weight, std=0.3)  # opinions
    return DetectorDistillation(teacher, student, margin=0.2).train()


def test_losses_equal_the_formulas(pair):
    images, targets = batch(0, 2)
    seen = {}
    hooks = [pair.student.rpn.register_forward_pre_hook(lambda m, a: seen.update(features=a[0])),
             pair.student.score.register_forward_hook(lambda m, a, o: seen.update(score=o)), pair.student.deltas.register_forward_hook(lambda m, a, o: seen.update(deltas=o))]
    original = pair.student.sample_rois
    pair.student.sample_rois = lambda *a: seen.setdefault('rois', original(*a))
    torch.manual_seed(0)
    with record_anchors(pair.student) as said: losses = pair(images, targets)
    for h in hooks: h.remove()
    del pair.student.sample_rois
    assert losses.keys() == {'rpn_cls', 'rpn_box', 'rpn_soft', 'rpn_bound', 'head_cls', 'head_box', 'head_soft', 'head_bound', 'hint', 'id'}

    t, rois, sample = pair.teacher, seen['rois'], said['sample']
    with torch.no_grad():
        x, _ = pair.student.batch(images)
        z = t.trunk(x)
        objectness, deltas = t.rpn.predict(z)
        advice = t.head(z, rois.boxes)
    soft = lambda s, q: sum(-(b * math.log(a) + 1.5 * (1 - b) * math.log(1 - a)) for a, b in zip(s.double().sigmoid().tolist(), q.double().sigmoid().tolist())) / len(s)
    def bound(s, q, goals, number):
        total = 0.
        for a, b, y in zip(s, q, goals):
            e, m = ((a - y) ** 2).sum().item(), ((b - y) ** 2).sum().item()
            total += e if e + 0.2 > m else 0.
        return total / number
    flat = lambda v: v.flatten(0, 1)
    wanted = torch.zeros(len(sample.rows)); wanted[:len(sample.goals)] = 1
    pos = rois.positive
    assert 0 < pos.sum() < len(pos) and 0 < len(sample.goals) < len(sample.rows)
    assert losses['rpn_cls'].item() == pytest.approx(0.5 * F.binary_cross_entropy_with_logits(said['objectness'].flatten()[sample.rows], wanted).item(), rel=1e-4)
    assert losses['head_cls'].item() == pytest.approx(0.5 * F.binary_cross_entropy_with_logits(seen['score'][:, 0], pos.float()).item(), rel=1e-4)
    assert losses['rpn_soft'].item() == pytest.approx(0.5 * soft(said['objectness'].flatten()[sample.rows], objectness.flatten()[sample.rows]), rel=1e-4)
    assert losses['head_soft'].item() == pytest.approx(0.5 * soft(seen['score'][:, 0], advice.score), rel=1e-4)
    assert losses['rpn_bound'].item() == pytest.approx(0.5 * bound(flat(said['deltas'])[sample.people], flat(deltas)[sample.people], sample.goals, len(sample.rows)), rel=1e-4)
    goals = pair.student.roi_head.box_targets(SimpleNamespace(deltas=seen['deltas']), rois)
    assert losses['head_bound'].item() == pytest.approx(0.5 * bound(seen['deltas'][pos], advice.deltas[pos], goals[:pos.sum()], len(pos)), rel=1e-4, abs=1e-7)
    assert losses['hint'].item() == pytest.approx(0.5 * ((pair.adapter(seen['features']) - z) ** 2).mean().item(), rel=1e-4)


def test_the_students_own_losses_are_its_own(pair):
    alone = copy.deepcopy(pair.student).train()
    torch.manual_seed(0)
    plain = alone(*batch(0, 1))
    torch.manual_seed(0)
    losses = pair(*batch(0, 1))
    for k, v in plain.items(): assert torch.equal(losses[k], 0.5 * v if k.endswith('cls') else v), k


def test_teacher_is_untouched_and_gradient_reaches_the_student_alone(pair):
    before = {k: v.clone() for k, v in pair.teacher.state_dict().items()}
    changed = {k: v.clone() for k, v in pair.student.state_dict().items()}
    opt = torch.optim.SGD([p for p in pair.parameters() if p.requires_grad], 0.01)
    for k in range(2): step(pair.train(), opt, k, k + 1)
    for k, v in pair.teacher.state_dict().items(): assert torch.equal(v, before[k]), k
    assert not any(m.training for m in pair.teacher.modules()) and pair.student.training
    assert all(p.grad is None and not p.requires_grad for p in pair.teacher.parameters())
    assert all(p.grad is not None for p in [*pair.student.parameters(), *pair.adapter.parameters()])
    moved = {k for k, v in pair.student.state_dict().items() if not torch.equal(v, changed[k])}
    assert any('running_mean' in k for k in moved) and 'id_loss.lut' not in moved and 'id_loss.queue' in moved
    pair.eval()
    with torch.no_grad(): assert torch.equal(pair([SCENES[0][0]])[0]['boxes'], pair.student([SCENES[0][0]])[0]['boxes'])
    assert isinstance(pair, Distillation)


def qeeps(seed=1, **kw):
    torch.manual_seed(seed)
    student = build_model('qeeps', IDS, width=0.125, **dict(dim=24, rpn_channels=16, roi_size=7, proposals=(20, 10)) | kw)
    for name in ('early_excite', 'squeeze_excite', 'query_rpn', 'similarity'):
        for p in getattr(student, name, nn.Module()).parameters(): p.data += 0.2 * torch.randn_like(p)
    return student


PAIR = [[SCENES[0][0], SCENES[3][0]], [SCENES[0][1], dict(boxes=SCENES[2][1]['boxes'], person_id=torch.tensor([2, -1, 0]))]]   # both show 0


@pytest.mark.parametrize('kind', [dict(), dict(qsse='all'), dict(qsse='none', qrpn=False, qsim=False)])
def test_a_qeeps_student_is_advised_about_its_rpn(kind):
    "By hand: the map and the sample are those of the RPN, not of the query-guided one, and the rows are the teacher's."
    teacher, student = net('resnet50', seed=3, id_loss='none', roi_size=7), qeeps(**kind)
    for layer in (teacher.rpn.objectness, teacher.score, teacher.rpn.deltas, teacher.deltas): nn.init.normal_(layer.weight, std=0.3)
    pair = DetectorDistillation(teacher, student).train()
    alone, taken, sample = copy.deepcopy(student), [], student.rpn.sample
    student.rpn.sample = lambda *a: taken.append((a[2], sample(*a))) or taken[-1][1]
    torch.manual_seed(0)
    with record_anchors(student) as said: losses = pair(*PAIR)
    assert [len(boxes) for targets, _ in taken for boxes in [torch.cat([t['boxes'] for t in targets])]] == [4] + [2] * student.qrpn   # everyone; then 0, in both scenes
    assert said['sample'] is taken[0][1]
    rows, people = said['sample'].rows, said['sample'].people
    with torch.no_grad():
        z = teacher.trunk(student.batch(PAIR[0])[0])
        score, boxes = teacher.rpn.predict(z)
        p, q = (o.flatten()[rows].double().sigmoid() for o in (said['objectness'], score))
        soft = -(q * p.log() + 1.5 * (1 - q) * (1 - p).log()).mean()
        assert losses['rpn_soft'].item() == pytest.approx(0.5 * soft.item(), rel=1e-4)
        e, m = ((d.flatten(0, 1)[people] - said['sample'].goals).square().sum(1) for d in (said['deltas'], boxes))
        assert losses['rpn_bound'].item() == pytest.approx(0.5 * (e * (e > m)).sum().item() / len(rows), rel=1e-4, abs=1e-7)
        assert torch.equal(student.rpn.predict(said['features'])[0], said['objectness'])
        assert losses['hint'].item() == pytest.approx(0.5 * F.mse_loss(pair.adapter(said['features']), z).item(), rel=1e-4)
        wanted = torch.zeros(len(rows)); wanted[:len(people)] = 1
        assert losses['rpn_cls'].item() == pytest.approx(0.5 * F.binary_cross_entropy_with_logits(said['objectness'].flatten()[rows], wanted).item(), rel=1e-4)
    torch.manual_seed(0)
    for k, v in alone(*PAIR).items(): assert losses[k].item() == pytest.approx((0.5 if k in ('rpn_cls', 'head_cls') else 1) * v.item(), rel=1e-3), k
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in [*student.parameters(), *pair.adapter.parameters()])


def test_the_recorder_hears_the_last_pass_of_every_student():
    for student in (net(), qeeps()):
        with record_anchors(student.train()) as said:
            student(*PAIR)
            first = said['features']
            student(*[x[::-1] for x in PAIR])
        assert not torch.equal(first, said['features']) and not student.rpn.hidden._forward_pre_hooks and not student.rpn.judge._forward_hooks
        assert torch.equal(student.rpn.predict(said['features'])[0], said['objectness'])


def test_a_run_of_an_advised_qeeps_student_resumes(tmp_path):
    how = replace(CONFIG, pairs=True)
    make = lambda: DetectorDistillation(net('resnet50', seed=3, id_loss='none', roi_size=7), qeeps())
    torch.manual_seed(2)
    whole, parts = make(), make()
    parts.adapter.load_state_dict(whole.adapter.state_dict())
    history = train(whole, Data(SCENES), how, tmp_path / 'whole', progress=False)
    broken_run(parts, tmp_path / 'parts', 4, how)
    parts = make()
    again = train(parts, Data(SCENES), how, tmp_path / 'parts', progress=False)
    assert [{k: v for k, v in r.items() if k != 'seconds'} for r in history] == [{k: v for k, v in r.items() if k != 'seconds'} for r in again]
    there = parts.state_dict()
    for k, v in whole.state_dict().items(): assert torch.equal(there[k], v), k
    kept = load_model(tmp_path / 'parts' / 'model.safetensors')
    there = kept.state_dict()
    assert type(kept) is type(whole.student) and all(torch.equal(there[k], v) for k, v in whole.student.state_dict().items())


@pytest.mark.parametrize('settings', [dict(mu=1.5), dict(mu=-.1), dict(nu=-1.), dict(gamma=math.nan), dict(background=math.inf)])
def test_weights_that_mean_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=f'{next(iter(settings))}='): DetectorDistillation(net(id_loss='none'), net(), **settings)


def test_nothing_is_computed_of_a_level_that_is_off(monkeypatch):
    "The teacher's trunk, RPN and head run only for the levels that want them, and the student's own losses stay bit for bit."
    from person_search_nb import kd_e2e
    teacher, student = net('resnet50', id_loss='none'), net()
    torch.manual_seed(5)
    own = copy.deepcopy(student).train()(*batch(0, 1))
    def run(**settings):
        pair, ran = DetectorDistillation(teacher, copy.deepcopy(student), **settings).train(), []
        hooks = [m.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, m in dict(trunk=teacher.stem, rpn=teacher.rpn.hidden, head=teacher.blocks[3]).items()]
        for name in ('soft_scores', 'bounded_boxes', 'hint_loss'):
            monkeypatch.setattr(kd_e2e, name, lambda *a, name=name: ran.append(name) or torch.zeros((), requires_grad=True))
        torch.manual_seed(5)
        losses = pair(*batch(0, 1))
        for h in hooks: h.remove()
        monkeypatch.undo()
        return ran, losses
    assert run()[0] == ['trunk', 'rpn', 'head', 'soft_scores', 'soft_scores', 'bounded_boxes', 'bounded_boxes', 'hint_loss']
    assert run(mu=1.)[0] == ['trunk', 'rpn', 'head', 'bounded_boxes', 'bounded_boxes', 'hint_loss']
    assert run(nu=0.)[0] == ['trunk', 'rpn', 'head', 'soft_scores', 'soft_scores', 'hint_loss']
    assert run(gamma=0.)[0] == ['trunk', 'rpn', 'head', 'soft_scores', 'soft_scores', 'bounded_boxes', 'bounded_boxes']
    assert run(mu=1., nu=0.)[0] == ['trunk', 'hint_loss']
    ran, losses = run(mu=1., nu=0., gamma=0.)
    assert ran == [] and losses.keys() == own.keys() and all(torch.equal(losses[k], v) for k, v in own.items())


def test_qeeps_teaches_oim_by_its_table(tmp_path):
    "The paper's teacher, through the recipe: a student of the teacher's 256 numbers, its rows those of every scene asked by itself."
    from person_search_nb.datasets import open_dataset
    from person_search_nb.presets import make_recipe
    from person_search_nb.recipes import run_recipe
    spec = 'synth:tiny?train_scenes=6&test_scenes=6&train_ids=6&test_ids=4&queries=2&gallery=3&size=96x160&cameras=2'
    small = dict(width=0.125, rpn_channels=16, roi_size=7, epochs=1, batch_size=2, warmup=0, start='', imprint=False, precision='fp32', device='cpu')
    who, _ = run_recipe(make_recipe('qeeps', spec, 'tiny', **small), tmp_path / 'qeeps', progress=False)
    taught, _ = run_recipe(make_recipe('oim', spec, 'tiny', trunk='resnet18', teacher=str(tmp_path / 'qeeps' / 'model.safetensors'), teach='table', **small), tmp_path / 'oim', progress=False)
    data = open_dataset(spec, 'train', progress=False)
    table = teacher_table(who, data, progress=False)
    assert taught.id_loss.lut.shape == table.shape == (data.num_ids, 256) and taught.id_loss.frozen.any()
    torch.testing.assert_close(taught.id_loss.lut[taught.id_loss.frozen], table[taught.id_loss.frozen], atol=1e-4, rtol=0)
    who.eval()
    k = next(i for i, s in enumerate(data.scenes) if (s.person_id >= 0).any())
    image, target = data[k]
    with torch.no_grad():                                           # one row of it, by the network's parts
        x, _ = who.batch([image])
        z = who.base(x).mean((2, 3))
        features = who.base(x) * who.squeeze_excite(z, z)[:, :, None, None]
        by_hand = F.normalize(who.head(features, [target['boxes']]).embedding, dim=1)
        torch.testing.assert_close(who.embed([image], [target['boxes']]), by_hand, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('native', (False, True))
def test_a_table_is_made_from_scenes_of_the_teachers_size(native, tmp_path, capsys):
    "Not of the student's, whose anchors are fitted to its own scenes; a teacher that looks at the student's batches is named in a warning."
    from person_search_nb.anchors import fit_heights
    from person_search_nb.datasets import open_dataset
    from person_search_nb.presets import make_recipe
    from person_search_nb.recipes import run_recipe
    spec = f"synth:tiny?train_scenes=6&test_scenes=6&train_ids=6&test_ids=4&queries=2&gallery=3&size={'64x112' if native else '128x224'}&cameras=2"
    its = None if native else (64, 112)  # None: as the data have it
    small = dict(trunk='resnet18', width=0.125, rpn_channels=16, steps=1, batch_size=2, warmup=0, start='', imprint=False, precision='fp32', device='cpu')
    who, _ = run_recipe(make_recipe('oim', spec, 'tiny', size=its, **small), tmp_path / 'teacher', progress=False)
    learn = lambda name, **kw: run_recipe(make_recipe('oim', spec, 'tiny', teacher=str(tmp_path / 'teacher' / 'model.safetensors'), **small | kw), tmp_path / name)[0]
    taught = learn('taught', teach='table', size=(96, 168))
    assert 'warning' not in capsys.readouterr().out and taught.size == (96, 168)
    seen = taught.id_loss.frozen
    own, students = ((d, teacher_table(load_model(tmp_path / 'teacher' / 'model.safetensors'), d, d.num_ids, progress=False)[seen])
                     for d in (open_dataset(spec, 'train', size=size, progress=False) for size in (its, (96, 168))))
    assert seen.any() and (own[1] - students[1]).abs().max() > 1e-3
    torch.testing.assert_close(taught.id_loss.lut[seen], own[1], atol=1e-5, rtol=0)
    assert taught.config['heights'] == pytest.approx(fit_heights(students[0].heights())) and max(who.config['heights']) < max(taught.config['heights'])
    again = learn('alike', teach='table', size=its)  # one size: its anchors, as before
    assert again.config['heights'] == who.config['heights']
    capsys.readouterr()
    advised = learn('advised', teach='detector', size=(96, 168))
    said = capsys.readouterr().out
    assert f"learned from scenes of size {its or 'as the data have it'} and is shown those of its student, (96, 168)" in said and 'teacher/model.safetensors' in said
    assert advised.config['heights'] == who.config['heights']  # compared row by row


def test_levels_are_switched_off_one_by_one():
    teacher, student = net('resnet50', id_loss='none'), net()
    for settings, gone in ((dict(mu=1.), ('soft',)), (dict(nu=0.), ('bound',)), (dict(gamma=0.), ('hint',)), (dict(mu=1., nu=0., gamma=0.), ('soft', 'bound', 'hint'))):
        pair = DetectorDistillation(teacher, copy.deepcopy(student), **settings).train()
        losses = pair(*batch(0, 1))
        for part in ('soft', 'bound', 'hint'): assert (part in gone) == (not any(part in k for k in losses)), (settings, part)
        assert (pair.adapter is None) == ('hint' in gone)
        assert all(p.requires_grad for p in pair.student.parameters())


def test_rows_are_aligned():
    student = net()
    for layer in (student.score, student.deltas, student.rpn.objectness, student.rpn.deltas): nn.init.normal_(layer.weight, std=0.3)
    twin = DetectorDistillation(copy.deepcopy(student), student, background=1., margin=-1e-4).train()
    student.eval()                                                 # both with the same statistics
    nn.init.dirac_(twin.adapter.weight); nn.init.zeros_(twin.adapter.bias)
    with record_anchors(student) as said: losses = twin(*batch(0, 1))
    s = said['objectness'].flatten()[said['sample'].rows]
    assert losses['hint'].item() < 1e-8 and losses['rpn_bound'].item() == losses['head_bound'].item() == 0   # nobody is worse than himself
    assert losses['rpn_soft'].item() == pytest.approx(0.5 * F.binary_cross_entropy_with_logits(s, s.sigmoid()).item(), rel=1e-4)


@pytest.mark.parametrize('scenes', [[EMPTY], [EMPTY, SCENES[2]], [SCENES[0], (SCENES[1][0], SCENES[1][1] | dict(person_id=torch.full((2,), -1)))]])
def test_scenes_without_people_or_identities(pair, scenes):
    losses = pair(*map(list, zip(*scenes)))
    assert all(v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in pair.parameters())
    if len(scenes) == 1: assert losses['rpn_bound'] == losses['head_bound'] == losses['id'] == 0


def test_under_autocast(pair):
    with torch.autocast('cpu', torch.bfloat16): losses = pair(*batch(0, 1))
    assert all(v.dtype == torch.float32 and v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in pair.student.parameters())


def test_pairs_that_do_not_fit():
    student = net()
    with pytest.raises(ValueError, match="11 anchors are not the student's 9"): DetectorDistillation(build_model('hdl-teacher', IDS, width=0.125), student)
    a, b = (build_model('hdl-student-fast', IDS, heights=[h + 2. * k for k in range(11)], width=0.125) for h in (20, 30))
    with pytest.raises(ValueError, match='same heights'): DetectorDistillation(a, b)
    with pytest.raises(ValueError, match='rescore'): DetectorDistillation(net(rescore=False), student)
    both = DetectorDistillation(net('resnet50', rescore=False), net(rescore=False)).train()
    assert not any('head_soft' in k for k in both(*batch(0, 1)))


def test_a_frozen_random_teacher_is_imitated():
    "No labels: what is left above the least the soft losses can be falls to a small part."
    torch.manual_seed(0)
    teacher = net('resnet18', seed=3, id_loss='none').train()
    with torch.no_grad():
        for _ in range(10): teacher(*batch(0, 1))
    for layer in (teacher.rpn.objectness, teacher.score): nn.init.normal_(layer.weight, std=0.4)
    student = net('resnet18', seed=1, rpn_channels=32).train()
    with torch.no_grad():
        for _ in range(10): student(*batch(0, 1))
    pair = DetectorDistillation(teacher, student, mu=0., nu=0.).train()
    student.eval()                                                 # statistics at rest: one function, learned by heart
    images, targets = batch(0, 1)
    opt = torch.optim.AdamW([p for p in pair.parameters() if p.requires_grad], 5e-3, weight_decay=0.)
    boxes = [t['boxes'] for t in targets]
    with torch.no_grad():
        z = teacher.trunk(teacher.batch(images)[0])
        objectness, score = teacher.rpn.predict(z)[0].flatten(), teacher.head(z, boxes).score
    least = [soft_scores(torch.logit(p / (p + 1.5 * (1 - p))), t).item() for t in (objectness, score) for p in [t.double().sigmoid().clamp(1e-9, 1 - 1e-9)]]
    curve = []
    for k in range(120):
        for g in opt.param_groups: g['lr'] = 5e-3 * 0.5 * (1 + math.cos(math.pi * k / 120))
        v = pair.student.trunk(pair.student.batch(images)[0])
        losses = [soft_scores(pair.student.rpn.predict(v)[0].flatten(), objectness), soft_scores(pair.student.head(v, boxes).score, score), hint_loss(pair.adapter(v), z)]
        opt.zero_grad(); sum(losses).backward(); opt.step()
        curve.append([losses[0].item() - least[0], losses[1].item() - least[1], losses[2].item()])
    assert min(min(c[:2]) for c in curve) > -1e-5                   # nothing is below the least
    for first, last, factor in zip(curve[0], curve[-1], (5, 50, 5)): assert last < first / factor, (first, last)


def learn():
    student = freeze_table(net(seed=1, rois_per_image=400), teacher_table(net(), SCENES, progress=False))
    student.rpn.batch_size = 10 ** 6                               # every region: nothing is drawn
    pair = DetectorDistillation(net('resnet50', seed=3, id_loss='none'), student).double()
    history = train(pair, Data(SCENES), replace(CONFIG, norm='shared', epochs=1), progress=False)
    return [{k: v for k, v in h.items() if k != 'seconds'} for h in history], student.state_dict() | pair.adapter.state_dict()


def test_two_processes_are_one():
    (history, state), (left, right) = learn(), spawn(learn, 2)
    assert all(torch.equal(v, right[1][k]) for k, v in left[1].items())
    for a, b in zip(history, left[0]):
        for k, v in a.items(): assert b[k] == pytest.approx(v, abs=1e-6), k
    for k, v in state.items(): torch.testing.assert_close(left[1][k], v, rtol=0, atol=1e-6, msg=lambda m: f'{k}: {m}')


# the trunk ------------------------------------------------------------------------------------------------------------

def test_resnet18_student():
    small, large = (build_model('oim', 3, trunk=t) for t in ('resnet18', 'resnet50'))
    assert small.project.in_features == 512 and large.project.in_features == 2048
    assert small.rpn.hidden[0].in_channels == 256 and large.rpn.hidden[0].in_channels == 1024
    assert small.project.out_features == large.project.out_features == small.id_loss.dim == 256
    assert small.config['trunk'] == 'resnet18'
    with pytest.raises(ValueError, match='unknown trunk'): build_model('oim', 3, trunk='resnet19')
