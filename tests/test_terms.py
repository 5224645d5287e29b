"Distillation terms: equal to loops over random inputs, settings and their text, recipes through the shell, runs that go on, pulls."
import json, math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from person_search_nb.checkpoints import load_tree
from person_search_nb.datasets import open_dataset
from person_search_nb.distributed import rank, spawn
from person_search_nb.distillation import TERMS, check_terms, list_terms, parse_terms, register_term
from person_search_nb.models import build_model, load_model, save_model
from person_search_nb.presets import fingerprint, make_recipe, preset_table
from person_search_nb.recipes import read_recipe, run_recipe
from person_search_nb.settings import TrainConfig
from person_search_nb.terms import HDL, box_shares, context_distance, decoupled_distillation
from person_search_nb.terms import focal_distillation, pull_rows, pulls, relational_distillation
from person_search_nb.training import train

pytestmark = pytest.mark.usefixtures('no_curves')
HEIGHTS = [30., 60., 90.]
SPEC = 'synth:tiny?train_scenes=6&test_scenes=4&train_ids=6&test_ids=4&queries=2&gallery=2&size=128x224'
HOW = TrainConfig(epochs=1, batch_size=2, lr=1e-3, warmup=0, optimizer='adamw', precision='fp32', device='cpu')


def networks(num_ids=6, **more):
    torch.manual_seed(0)
    kw = dict(heights=HEIGHTS, rois_per_image=8, proposals=(20, 10)) | more
    return build_model('hdl-teacher', num_ids, width=0.0625, **kw), build_model('hdl-student-fast', num_ids, width=0.125, **kw)


def scenes():
    boxes = torch.tensor([[10., 12, 40, 80], [60, 20, 85, 88], [100, 5, 130, 90]])
    return ([torch.rand(3, 96, 150), torch.rand(3, 80, 120)],
            [dict(boxes=boxes, person_id=torch.tensor([3, -1, 0])), dict(boxes=boxes[:2] * 0.8, person_id=torch.tensor([1, 3]))])


def kl(p, q): return sum(a * math.log(a / b) for a, b in zip(p, q))


@pytest.mark.parametrize('seed', range(6))
def test_decoupled_distillation_is_the_loop(seed):
    torch.manual_seed(seed)
    classes, rows = 2 + seed, 1 + 2 * seed
    s, t = (4 * torch.randn(rows, classes, dtype=torch.float64) for _ in range(2))
    who = torch.randint(-1, classes, (rows,))
    T, alpha, beta = 0.5 + seed, 1. + seed, 3. - seed / 4
    found = []
    for a, b, k in zip(s, t, who.tolist()):
        if k < 0: continue
        p, q = (torch.softmax(x / T, 0) for x in (b, a))
        rest = [i for i in range(classes) if i != k]
        others = [[(x[i] / x[rest].sum()).item() for i in rest] for x in (p, q)]
        found.append(alpha * kl((p[k].item(), 1 - p[k].item()), (q[k].item(), 1 - q[k].item())) + beta * kl(*others))
    wanted = T ** 2 * np.mean(found) if found else 0.
    assert decoupled_distillation(s, t, who, alpha, beta, T).item() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize('rows', range(6))
def test_relational_distillation_is_the_loop(rows):
    torch.manual_seed(rows)
    s, t = torch.randn(rows, 3, dtype=torch.float64), torch.randn(rows, 5, dtype=torch.float64)
    huber = lambda d: 0.5 * d * d if abs(d) < 1 else abs(d) - 0.5
    both = []
    for e in (s, t):
        far = {(i, j): (e[i] - e[j]).norm().item() for i in range(rows) for j in range(rows) if i != j}
        mean = np.mean(list(far.values())) if far else 1.
        cos = {(i, j, k): torch.cosine_similarity(e[i] - e[j], e[k] - e[j], 0).item()
               for i in range(rows) for j in range(rows) for k in range(rows) if len({i, j, k}) == 3}
        both.append(({k: v / mean for k, v in far.items()}, cos))
    wanted = 0.
    for weight, a, b in zip((1.5, 0.5), *both):
        if a: wanted += weight * np.mean([huber(a[k] - b[k]) for k in a])
    assert relational_distillation(s, t, 1.5, 0.5).item() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_gradients_of_the_losses_by_differences():
    torch.manual_seed(0)
    t, who = torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 2, -1, 1])
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: decoupled_distillation(s, t, who), (x,))
    assert torch.autograd.gradcheck(lambda s: relational_distillation(s, t), (x,))
    m, other = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True), torch.randn(1, 2, 5, 5, dtype=torch.float64)
    inside, boxes = torch.ones(1, 1, 5, 5) > 0, [torch.tensor([[5., 5, 40, 60]])]
    assert torch.autograd.gradcheck(lambda s: focal_distillation(s, other, boxes, inside), (m,))
    assert torch.autograd.gradcheck(lambda s: context_distance(s, other, inside), (m,))


def test_padding_changes_no_focal_loss():
    torch.manual_seed(0)
    s, t, box = torch.randn(1, 4, 6, 5), torch.randn(1, 4, 6, 5), [torch.tensor([[20., 10, 50, 80]])]
    alone = focal_distillation(s, t, box, torch.ones(1, 1, 6, 5) > 0)
    wide, inside = [torch.cat([x, torch.randn(1, 4, 6, 3)], 3) for x in (s, t)], torch.zeros(1, 1, 6, 8) > 0
    inside[..., :5] = True
    assert focal_distillation(*wide, box, inside).item() == pytest.approx(alone.item(), rel=1e-5)
    people, street = box_shares(box, inside, 16)
    assert not people[..., 5:].any() and not street[..., 5:].any()


def test_terms_as_text_and_as_dict_are_the_same():
    text = 'pd=0.5,temperature=2 rkd=25,angle=1.,most=8 fgd=1e-4,levels=(1,2)'
    table = {'pd': dict(weight=0.5, temperature=2), 'rkd': dict(weight=25, angle=1., most=8), 'fgd': dict(weight=1e-4, levels=(1, 2))}
    assert parse_terms(text) == table == check_terms(table)
    teacher, student = networks()
    a, b = (HDL(teacher, student, terms=x) for x in (text, table))
    assert a.terms == b.terms and a.weights == dict(pd=0.5, rkd=25, fgd=1e-4)
    assert a.own['fgd'].levels == (1, 2)


@pytest.mark.parametrize('terms', ('rdk=1', 'pd', 'pd=', 'pd=x', 'pd=-1', 'pd=2', 'pd=nan', 'rkd=1,angel=2', 'rkd=1,angle=x', 'pd=1 pd=2',
                                   'fgd=1,levels=2', 'fgd=1,levels=(3,)', dict(pd=True), dict(rkd=dict(weight=None)), dict(dkd=[1])))
def test_bad_terms_are_one_line(terms):
    with pytest.raises(ValueError) as e: HDL(*networks(), terms=terms)
    assert '\n' not in str(e.value) and len(str(e.value)) < 300


def test_settings_reach_the_terms():
    images, targets = scenes()
    def value(term, **settings):
        torch.manual_seed(0)
        return HDL(*networks(), terms={term: dict(weight=1., **settings)}).train()(images, targets)[term].item()
    for term, change in (('pd', dict(temperature=1.)), ('fd', dict(levels=(0,))), ('dkd', dict(beta=1.)), ('rkd', dict(distance=9.)),
                         ('fgd', dict(attention=9.)), ('review', dict(channels=8))):
        assert value(term) == value(term) and value(term) != value(term, **change), term
    assert value('pd', temperature=4., hinton=False) == value('pd')


@pytest.mark.parametrize('loss', ('softmax', 'rss', 'oim'))
def test_people_are_the_rows_whatever_the_identity_loss(loss):
    pair = HDL(*networks(id_loss=loss), terms='pd=1 dkd=1 rkd=1').train()
    losses, both = pair.compare(*scenes())
    n = int(both.rois.positive.sum())
    assert [len(x) for x in (*both.embeddings(), *both.logits(), both.person_ids())] == [n] * 5
    assert all(v.isfinite() for v in pair(*scenes()).values())


def test_pulls_are_the_gradients_and_change_nothing():
    pair = HDL(*networks(), terms='pd=0.25 rkd=5 review=1')  # in training mode
    before = {k: v.clone() for k, v in pair.state_dict().items()}
    images, targets = scenes()
    state = torch.get_rng_state()
    rows = pull_rows(pair.train(), images, targets, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in pair.state_dict().items())
    assert [(r['loss'], r['weight']) for r in rows] == [('detection', 1.), ('id', 0.75), ('pd', 0.25), ('rkd', 5.), ('review', 1.)]
    torch.manual_seed(3)
    losses = pair(images, targets)
    sum(losses[k] for k in ('rpn_cls', 'rpn_box', 'head_cls', 'head_box')).backward()
    by_hand = math.sqrt(sum(p.grad.square().sum().item() for p in pair.student.parameters() if p.grad is not None))
    assert rows[0]['pull'] == pytest.approx(by_hand, rel=1e-4) and pulls(pair, images, targets, 3)['rkd'] > 0


@pytest.mark.parametrize('name, more', (('hdl-student', {}), ('hdl-student-resnet18', {}), ('hdl-student-mobilenet', {}),
                                        ('hdl-student-mobilenet', dict(trunk='mobilenet_v3'))))
def test_every_student_learns_from_all_four_levels(name, more):
    teacher, _ = networks()
    student = build_model(name, 6, heights=HEIGHTS, width=0.125, rois_per_image=8, proposals=(20, 10), **more)
    pair = HDL(teacher, student, terms='pd=0.5 ad=400 fd=100 dkd=1 rkd=5 fgd=1e-4 review=1').train()
    losses = pair(*scenes())
    sum(losses.values()).backward()
    assert all(v.isfinite() for v in losses.values()) and losses['fd'] > 0 < losses['ad']
    grads = [p.grad for p in pair.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in grads)
    assert pair.levels == (0, 1, 2, 3)


@pytest.fixture(scope='module')
def taught(tmp_path_factory, shell):
    "A teacher's file, and a student trained from it with terms, by the command."
    d = tmp_path_factory.mktemp('terms')
    data = open_dataset(SPEC, 'train', progress=False)
    torch.manual_seed(0)
    teacher = build_model('hdl-teacher', data.num_ids, heights=HEIGHTS, width=0.0625)
    save_model(teacher, d / 'teacher.safetensors')
    command = ['distill', str(d / 'teacher.safetensors'), '--data', SPEC,
               '--preset', 'tiny', '--out', str(d / 'run'), '--set', 'terms=pd=0.5 rkd=25,angle=1. fgd=1e-4', 'width=0.125', 'rpn_channels=16',
               'start=', 'steps=1', 'batch_size=2', 'warmup=0', 'device=cpu', 'precision=fp32', 'weights={"rkd": 2.0}', 'imprint=False']
    return d, shell(*command)


def test_a_recipe_with_terms_through_the_shell(taught):
    d, done = taught
    assert done.returncode == 0, done.stderr[-2000:]
    recipe = read_recipe(d / 'run/recipe.json')
    assert recipe.terms == {'pd': dict(weight=0.5), 'rkd': dict(weight=25, angle=1.), 'fgd': dict(weight=1e-4)}
    head = (d / 'run/log.csv').read_text().splitlines()[0].split(',')
    assert {'pd', 'rkd', 'fgd'} <= set(head) and not {'ad', 'fd'} & set(head)
    assert json.loads((d / 'run/recipe.json').read_text())['terms']['rkd'] == dict(weight=25, angle=1.)
    assert set(load_tree(d / 'run/checkpoint.safetensors')['aside']) == {'own.fgd.adapt.0.weight', 'own.fgd.adapt.0.bias'}
    assert not any('own' in k for k in load_model(d / 'run/model.safetensors').state_dict())


def test_other_terms_are_another_run(taught):
    d, done = taught
    recipe = read_recipe(d / 'run/recipe.json')
    model, history = run_recipe(recipe, d / 'run', progress=False)  # finds itself finished
    assert len(history) == 1
    with pytest.raises(ValueError, match='another'): run_recipe(replace(recipe, terms={}), d / 'run', progress=False)


def test_presets_and_fingerprints_know_terms():
    plain = make_recipe('hdl-student-fast', 'synth:tiny', 'tiny')
    with_terms = make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', terms='pd=0.5 rkd=25')
    assert fingerprint(plain) != fingerprint(with_terms)
    assert fingerprint(with_terms) == fingerprint(make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', terms=dict(pd=0.5, rkd=25)))
    assert make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', terms='').terms == {}
    assert '| `terms` | `{}` | HDL, Eq. 10' in preset_table('hdl-student', 'cuhk-sysu:PATH')
    for bad in ('rkd=1,angel=2', 'nothing=1'):
        with pytest.raises(ValueError): make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', terms=bad)
    with pytest.raises(ValueError, match='teach=table'): make_recipe('oim', 'synth:tiny', 'tiny', terms='pd=1', teach='table')
    make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', terms='rkd=1', weights=dict(rkd=3.))
    with pytest.raises(ValueError, match='rkd'): make_recipe('hdl-student-fast', 'synth:tiny', 'tiny', weights=dict(nothing=3.))


class Bent(nn.Module):
    "A term with parameters and a buffer of its own."
    def __init__(self, student, teacher, size=2.):
        super().__init__()
        self.line = nn.Linear(student.id_loss.dim, teacher.id_loss.dim)
        self.register_buffer('seen', torch.zeros(()))
        self.size = size

    def forward(self, both):
        s, t = both.embeddings()
        self.seen += len(s)
        return self.size * (self.line(s) - t).square().sum()


def test_a_run_whose_term_has_parameters_goes_on_to_the_same_numbers(tmp_path):
    register_term('bent')(Bent)
    try:
        assert 'bent' in list_terms()
        data = open_dataset(SPEC, 'train', cache=True, progress=False)
        def run(out, steps, **kw):
            pair = HDL(*networks(data.num_ids), terms={'pd': 0.5, 'bent': dict(weight=1e-3, size=3.)})
            return pair, train(pair, data, replace(HOW, steps=steps, milestones=()), tmp_path / out, progress=False, **kw)
        whole, rows = run('whole', 6)
        run('parts', 3)
        resumed, again = run('parts', 6, extend=True)
        assert [r['bent'] for r in rows] == [r['bent'] for r in again] and len(rows) == 6
        there = resumed.state_dict()
        assert all(torch.equal(v, there[k]) for k, v in whole.state_dict().items())
        start = HDL(*networks(data.num_ids), terms='bent=1').own['bent']
        assert not torch.equal(whole.own['bent'].line.bias, start.line.bias) and whole.own['bent'].seen > 0
        with pytest.raises(ValueError, match=r'terms \(\[\['):
            train(HDL(*networks(data.num_ids), terms={'pd': 0.5, 'bent': 1e-3}), data, HOW, tmp_path / 'parts', progress=False)
    finally: del TERMS['bent']


# several processes -------------------------------------------------------------------------------------------------------

class Sometimes(nn.Module):
    "A term that has nothing to say in the second process."
    def __init__(self, student, teacher):
        super().__init__()
        self.line = nn.Linear(student.id_loss.dim, 3)

    def forward(self, both): return self.line(both.embeddings()[0]).square().mean() if rank() == 0 else both.x.new_zeros(())


class Normed(nn.Module):
    "A term with BatchNorm."
    def __init__(self, student, teacher):
        super().__init__()
        self.norm = nn.BatchNorm1d(student.id_loss.dim)

    def forward(self, both): return (self.norm(both.embeddings()[0]) - 1).square().mean()


def learn_terms(terms, folder=None, steps=2):
    "Own weights that begin otherwise in each process, every region, float64: near ties are not decided by the last digit."
    data = open_dataset(SPEC, 'train', progress=False)
    teacher, student = networks(data.num_ids, rois_per_image=400)
    student.rpn.batch_size = 10 ** 6
    torch.manual_seed(7 + rank())
    pair = HDL(teacher, student, terms=terms).double()
    before = {k: v.clone() for k, v in pair.own.state_dict().items()}
    how = replace(HOW, steps=steps, milestones=(), norm='shared', checkpoint_every=1)
    rows = train(pair, data, how, folder, progress=False, extend=True)
    return [{k: v for k, v in r.items() if k != 'seconds'} for r in rows], student.state_dict(), pair.own.state_dict(), before


def learn_twice(folder):
    register_term('sometimes')(Sometimes)  # these processes end with the test
    register_term('normed')(Normed)
    terms = 'review=1 fgd=0.001 pd=0.5'
    learn_terms(terms, folder / 'parts', 1)
    return learn_terms(terms, folder / 'whole'), learn_terms(terms, folder / 'parts'), learn_terms('sometimes=1 normed=1')


def equal(a, b): return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def test_terms_with_weights_in_two_processes(tmp_path):
    "Equal in both, moved, what one process computes, and the same after a break; a term may be silent in one process."
    left, right = spawn(learn_twice, 2, tmp_path)
    for (_, a_net, a_own, _), (_, b_net, b_own, _) in zip(left, right):
        assert equal(a_net, b_net) and equal(a_own, b_own)
    whole, parts, _ = left
    assert [k for k in whole[2] if torch.equal(whole[2][k], whole[3][k])] == []
    assert parts[0] == whole[0] and equal(parts[1], whole[1]) and equal(parts[2], whole[2])
    one = learn_terms('review=1 fgd=0.001 pd=0.5')
    for i in (1, 2):
        for k, v in one[i].items(): torch.testing.assert_close(whole[i][k], v, rtol=0, atol=1e-6, msg=lambda m: f'{k}: {m}')


@pytest.mark.parametrize('name', ['fgd', 'review'])
def test_weights_of_terms_get_a_gradient_without_people(name):
    pair = HDL(*networks(), terms={name: 1.}).train()
    images, targets = scenes()
    empty = [dict(boxes=torch.zeros(0, 4), person_id=torch.zeros(0, dtype=torch.int64)) for _ in targets]
    sum(pair(images, empty).values()).backward()
    assert all(p.grad is not None for p in pair.own.parameters()) and not pair.partial
