"QEEPS: parts as their formulas, pairs that share people, guidance that is exact where it says nothing, and errors that help."
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from person_search_nb.datasets import open_dataset
from person_search_nb.model_files import save_model
from person_search_nb.loading import PairSampler, SceneBatches, SceneLoader
from person_search_nb.retrieval_metrics import per_query
from person_search_nb.evaluation import evaluate, search_truth
from person_search_nb.settings import TrainConfig
from person_search_nb.steps import step_items
from person_search_nb.training import train
from person_search_nb.qsse_net import pick_queries
from person_search_nb.query_guidance import Excitation, QueryRPN, QuerySimilarity, QuerySqueezeExcite
from person_search_nb.guided_search import evaluate_queries, match_queries, pair_macs, run_queries
from person_search_nb.guided_search import search_macs
from person_search_nb.models import build_model, load_model

pytestmark = pytest.mark.usefixtures('no_curves')
SPEC = 'synth:tiny?train_scenes=12&test_scenes=8&train_ids=10&test_ids=8&queries=5&gallery=4&size=96x160&cameras=2'
EMPTY = dict(boxes=torch.zeros(0, 4), person_id=torch.zeros(0, dtype=torch.int64))


@pytest.fixture(scope='module')
def data(): return open_dataset(SPEC, 'train', progress=False, cache=True, workers=0)


@pytest.fixture(scope='module')
def search(): return open_dataset(SPEC, 'gallery', progress=False, cache=True, workers=0), open_dataset(SPEC, 'query', progress=False)


def fresh(num_ids=10, **kw):
    torch.manual_seed(0)
    return build_model('qeeps', num_ids, width=0.125, **dict(rpn_channels=16, roi_size=7, proposals=(20, 20), detections=10) | kw)


def opinionated(**kw):
    net = fresh(**kw)
    for name in ('early_excite', 'squeeze_excite', 'query_rpn', 'similarity'):
        for p in getattr(net, name, torch.nn.Module()).parameters(): p.data += .3 * torch.randn_like(p)
    torch.nn.init.normal_(net.score.weight, std=2.)
    return net


def a_pair(data):
    "Two scenes that share someone, and who they share."
    for i, a in enumerate(data.scenes):
        for j in range(i + 1, len(data)):
            both = np.intersect1d(a.person_id[a.person_id >= 0], data.scenes[j].person_id)
            if len(both): return *zip(data[i], data[j]), both.tolist()


OFF = dict(qsse='none', qrpn=False, qsim=False)
SWITCHES = {'all parts': {}, 'all layers': dict(qsse='all'), 'no QSSE': dict(qsse='none'), 'no QRPN': dict(qrpn=False), 'no QSimNet': dict(qsim=False),
            'QSSE alone': dict(qrpn=False, qsim=False), 'all layers alone': dict(qsse='all', qrpn=False, qsim=False), 'QRPN alone': dict(qsse='none', qsim=False),
            'QSimNet alone': dict(qsse='none', qrpn=False), 'none': OFF}


# -- the parts ----------------------------------------------------------------------------------------------------

def test_excitation_is_its_equation_and_starts_at_one():
    torch.manual_seed(0)
    e, z = Excitation(5, 3, 2), torch.randn(4, 5)
    assert (e(z) == 1).all()
    for p in e.parameters(): torch.nn.init.normal_(p)
    (a, b), (c, d) = ((l.weight.detach().numpy(), l.bias.detach().numpy()) for l in (e[0], e[2]))
    np.testing.assert_allclose(e(z).detach(), 2 / (1 + np.exp(-(np.maximum(z.numpy() @ a.T + b, 0) @ c.T + d))), rtol=1e-5)


def test_squeeze_excite_takes_the_asking_scene_first():
    torch.manual_seed(0)
    m, q, s = QuerySqueezeExcite(4, 2), torch.randn(3, 4), torch.randn(3, 4)
    for p in m.parameters(): torch.nn.init.normal_(p)
    assert torch.equal(m(q, s), m.excite(torch.cat([q, s], 1))) and not torch.allclose(m(q, s), m(s, q))


def test_query_rpn_is_an_rpn_on_a_reweighed_map():
    torch.manual_seed(0)
    net = fresh()
    rpn, c = net.rpn, net.rpn.hidden[0].in_channels
    q, x, v = QueryRPN(c, rpn, 4), torch.randn(2, c, 3, 5), torch.randn(2, c)
    assert (q(x, v) == 0).all()
    for p in q.parameters(): torch.nn.init.normal_(p, std=.1)
    rpn.hidden.load_state_dict(q.hidden.state_dict()); rpn.objectness.load_state_dict(q.objectness.state_dict())
    torch.testing.assert_close(q(x, v), rpn.predict(x * q.excite(v)[:, :, None, None])[0])


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), dim=st.integers(2, 40))
def test_fresh_similarity_ranks_as_the_cosine(seed, dim):
    torch.manual_seed(seed)
    sim = QuerySimilarity(dim).double().eval()
    q, x = F.normalize(torch.randn(1, dim).double()).expand(30, -1), F.normalize(torch.randn(30, dim).double())
    assert sim(q, x).argsort().tolist() == (q * x).sum(1).argsort().tolist()


def test_similarity_of_few_rows_and_under_autocast():
    sim = QuerySimilarity(8).train()
    for n in (0, 1, 2): assert sim(torch.randn(n, 8), torch.randn(n, 8)).shape == (n,)
    with torch.autocast('cpu', torch.bfloat16): assert sim(torch.randn(3, 8).bfloat16(), torch.randn(3, 8).bfloat16()).dtype == torch.float32


# -- pairs --------------------------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(scenes=st.lists(st.lists(st.integers(-1, 8), max_size=4), max_size=25), seed=st.integers(0, 99), epoch=st.integers(0, 99))
def test_pairs_share_people_and_every_scene_comes_once(scenes, seed, epoch):
    ids = [np.array(s, np.int64) for s in scenes]
    sampler = PairSampler(ids, .5, seed)
    sampler.epoch = epoch
    items = list(sampler)
    order = [i for i, *_ in items]
    assert sorted(order) == list(range(len(ids))) == list(range(len(sampler)))
    share = lambda i, j: bool({p for p in scenes[i] if p >= 0} & {p for p in scenes[j] if p >= 0})
    alone = [i for a, b in zip(order[::2], order[1::2]) if not share(a, b) for i in (a, b)] + order[len(order) // 2 * 2:]
    assert not any(share(i, j) for k, i in enumerate(alone) for j in alone[:k]), 'two who could have met'
    again = PairSampler(ids, .5, seed)
    again.epoch = epoch
    assert list(again) == items


@settings(max_examples=30)
@given(n=st.integers(1, 40), batch=st.sampled_from((2, 4, 6)), drop=st.booleans(), seed=st.integers(0, 99))
def test_grouping_keeps_pairs_together(n, batch, drop, seed):
    rng = np.random.default_rng(seed)
    ids = [rng.integers(0, 6, 2) for _ in range(n)]
    sampler = PairSampler(ids, seed=seed)
    order = [i for i, *_ in sampler]
    sampler.epoch = 0
    got = [[i for i, *_ in b] for b in SceneBatches(sampler, batch, drop, rng.integers(50, 500, (n, 2)), pool=2)]
    pairs = {tuple(order[k:k + 2]) for k in range(0, n, 2)}
    assert all(tuple(b[k:k + 2]) in pairs for b in got for k in range(0, len(b), 2))


def test_training_items_are_the_same_when_resumed(data):
    how = TrainConfig(batch_size=4, pairs=True, flip=.5, seed=3)
    whole = list(step_items(data, how, 0, 9))
    assert list(step_items(data, how, 4, 9)) == whole[4:] and {i for b in whole[:3] for i, *_ in b} == set(range(12))
    assert [t['image_id'] for _, ts in SceneLoader(data, whole[:3], workers=1) for t in ts] == [i for b in whole[:3] for i, *_ in b]


def test_a_pair_is_not_torn_apart(data):
    with pytest.raises(ValueError, match='make it even'): train(fresh(), data, TrainConfig(epochs=1, batch_size=3, pairs=True, device='cpu', precision='fp32'), progress=False)
    with pytest.raises(ValueError, match='make it even'): train(fresh(), data, TrainConfig(epochs=1, batch_size=6, accumulate=2, pairs=True, device='cpu', precision='fp32'), progress=False)


def test_queries_are_people_both_show():
    t = [dict(boxes=torch.arange(4. * n).view(n, 4), person_id=torch.tensor(ids)) for n, ids in ((3, [4, -1, 7]), (2, [7, -1]), (1, [-1]), (1, [-1]), (1, [4]))]
    partner, asked, boxes = pick_queries(t, [(20, 30)] * 5)
    assert partner.tolist() == [1, 0, 2, 3, 4] and asked.tolist() == [7, 7, -1, -1, -1]
    assert boxes[0].tolist() == [[8., 9, 10, 11]] and boxes[1].tolist() == [[0., 1, 2, 3]] and boxes[4].tolist() == [[0., 0, 30, 20]]


# -- training -----------------------------------------------------------------------------------------------------

def test_losses_are_finite_and_reach_every_part(data):
    images, targets, both = a_pair(data)
    net = opinionated().train()
    losses = net(list(images), list(targets))
    assert set(losses) == {'rpn_cls', 'rpn_box', 'head_cls', 'head_box', 'id', 'query_rpn', 'query_sim'}
    for k, part in (('query_rpn', net.query_rpn), ('query_rpn', net.squeeze_excite), ('query_sim', net.similarity), ('query_sim', net.squeeze_excite)):
        net.zero_grad()
        losses[k].backward(retain_graph=True)
        assert max(p.grad.abs().max() for p in part.parameters()) > 0, k
    assert max(p.grad.abs().max() for p in net.blocks.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize('case', ['strangers', 'empty', 'odd', 'unlabelled'])
@pytest.mark.parametrize('autocast', [False, True])
def test_without_a_shared_person_query_losses_are_zero_with_a_graph(data, case, autocast):
    images, targets, _ = a_pair(data)
    nobody = dict(targets[1], person_id=targets[1]['person_id'].clamp(max=-1))
    pics, truth = dict(strangers=(images, [targets[0], nobody]), empty=(images, [EMPTY, EMPTY]), odd=(images[:1], targets[:1]), unlabelled=(images, [nobody, nobody]))[case]
    if case == 'unlabelled': pics = [images[1]] * 2
    net = fresh().train()
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast): losses = net(list(pics), list(truth))
    assert losses['query_rpn'] == 0 == losses['query_sim'] and all(v.isfinite() and v.dtype == torch.float32 for v in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_scene_without_a_partner_adds_nothing_to_the_query_losses(data):
    images, targets, both = a_pair(data)
    targets = [dict(t, person_id=torch.where(t['person_id'] == both[0], both[0], -1)) for t in targets]  # one choice only
    def query_losses(pics, truth):
        net = opinionated().train()
        for m in net.modules():
            if isinstance(m, torch.nn.modules.batchnorm._BatchNorm): m.eval()  # no statistics that other scenes could change
        net.rpn.batch_size = 10**6              # all anchors: nothing drawn at random
        net.sample_rois = lambda proposals, targets: type(net).sample_rois(net, [p[:0] for p in proposals], targets)
        return {k: v.item() for k, v in net(list(pics), list(truth)).items() if k.startswith('query')}
    two, four = query_losses(images, targets), query_losses(images + images, targets + [EMPTY, EMPTY])
    assert two['query_sim'] == pytest.approx(four['query_sim'], rel=1e-3) and two['query_rpn'] == pytest.approx(four['query_rpn'], rel=1e-3)


def test_it_teaches(data):
    "HDL asks a teacher about a student's regions: nobody asks for anybody."
    from person_search_nb.distillation import HDL
    images, targets, _ = a_pair(data)
    pair = HDL(fresh(attention='arm'), build_model('oim', 10, width=0.125, attention='arm', rpn_channels=16, roi_size=7)).train()
    assert all(v.isfinite() for v in pair(list(images), list(targets)).values())


def test_the_trainer_trains_it_and_a_run_can_be_repeated(data):
    how = TrainConfig(epochs=1, batch_size=4, pairs=True, lr=.01, warmup=0, device='cpu', precision='fp32')
    a, b = (train(fresh(data.num_ids), data, how, progress=False) for _ in range(2))
    assert [r['loss'] for r in a] == [r['loss'] for r in b] and all(np.isfinite(r['loss']) for r in a) and len(a) == 3


# -- search -------------------------------------------------------------------------------------------------------

# -- the switches -------------------------------------------------------------------------------------------------

def test_names_of_the_default_are_as_they_were():
    "Files written before there were switches are read: names, and no new ones."
    new = {k.split('.')[0] for k in fresh().state_dict()}
    oim = {k.split('.')[0] for k in build_model('oim', 10, width=0.125, rpn_channels=16, roi_size=7).state_dict()}
    assert new - oim == {'squeeze_excite', 'query_rpn', 'similarity'}
    assert {k for k in fresh().state_dict() if k.startswith('query_rpn')} == {f'query_rpn.{k}' for k in (
        'excite.0.weight', 'excite.0.bias', 'excite.2.weight', 'excite.2.bias', 'hidden.0.weight', 'hidden.0.bias', 'objectness.weight', 'objectness.bias')}
    assert set(fresh(qsse='all').state_dict()) - set(fresh().state_dict()) == {f'early_excite.{j}.excite.{k}' for j in (0, 1) for k in ('0.weight', '0.bias', '2.weight', '2.bias')}
    assert set(fresh(**OFF).state_dict()) == set(build_model('oim', 10, width=0.125, rpn_channels=16, roi_size=7).state_dict())


def test_with_all_parts_off_it_is_oim(data):
    "Losses, gradients, statistics, detections, embeddings; and a search with a query gives OIM's detections and cosines."
    images, targets, both = a_pair(data)
    oim, net = build_model('oim', 10, width=0.125, rpn_channels=16, roi_size=7), fresh(**OFF, proposals=(100, 50), detections=30)
    net.load_state_dict(oim.state_dict())
    losses = []
    for model in (oim, net):
        torch.manual_seed(4)
        losses.append(model.train()(list(images), list(targets)))
        sum(losses[-1].values()).backward()
    assert losses[0].keys() == losses[1].keys() and all(torch.equal(v, losses[1][k]) for k, v in losses[0].items())
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(oim.parameters(), net.parameters()))
    there = net.state_dict()
    assert all(torch.equal(v, there[k]) for k, v in oim.state_dict().items())
    for model in (oim.eval(), net.eval()): torch.nn.init.normal_(model.score.weight, std=2., generator=torch.Generator().manual_seed(0))
    box = targets[0]['boxes'][targets[0]['person_id'] == both[0]]
    with torch.no_grad():
        found, its = net.search([images[1]], images[0], box[0])[0], oim([images[1]])[0]
        assert len(its['boxes']) and all(torch.equal(found[k], its[k]) for k in ('boxes', 'scores'))
        torch.testing.assert_close(found['similarity'], its['embeddings'] @ oim.embed([images[0]], [box])[0])


@pytest.mark.parametrize('kind', SWITCHES)
def test_every_switch_trains_searches_and_resumes(kind, data, search, tmp_path):
    gallery, queries = search
    images, targets, both = a_pair(data)
    net = opinionated(**SWITCHES[kind]).train()
    losses = net(list(images), list(targets))
    off = {k for k, part in (('query_rpn', 'qrpn'), ('query_sim', 'qsim')) if not getattr(net, part)}
    assert set(losses) == {'rpn_cls', 'rpn_box', 'head_cls', 'head_box', 'id', 'query_rpn', 'query_sim'} - off
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    for name in ('early_excite', 'squeeze_excite', 'query_rpn', 'similarity'):
        if hasattr(net, name): assert max(p.grad.abs().max() for p in getattr(net, name).parameters()) > 0, name
    found = run_queries(net, gallery, queries, batch_size=2, progress=False)
    candidates = search_truth(queries, gallery)['candidates']
    for q in (0, len(queries) - 1):                # the loops that keep what they can against one call per pair
        image, box, _ = queries[q]
        scenes = [s for s in candidates[q] if s >= 0]
        each, rows = net.search([gallery.image(s) for s in scenes], image, box[0]), found['det_query'] == q
        assert found['det_image'][rows].tolist() == [s for s, f in zip(scenes, each) for _ in f['boxes']]
        for key, name, tol in (('det_boxes', 'boxes', .05), ('det_scores', 'scores', 1e-3), ('similarity', 'similarity', 1e-2)):
            np.testing.assert_allclose(found[key][rows], torch.cat([f[name] for f in each]), atol=tol, rtol=1e-3)
    if not net.qsim: assert np.abs(found['similarity']).max() <= 1 + 1e-5
    save_model(net, tmp_path/'net.safetensors')
    again = load_model(tmp_path/'net.safetensors')
    assert (again.qsse, again.qrpn, again.qsim) == (net.qsse, net.qrpn, net.qsim) and again.state_dict().keys() == net.state_dict().keys()
    for k, v in run_queries(again, gallery, queries, batch_size=2, progress=False).items(): np.testing.assert_array_equal(v, found[k])


@pytest.mark.parametrize('kind', ['all layers', 'no QSSE', 'no QSimNet'])
def test_a_broken_run_goes_on(kind, data, tmp_path):
    how = TrainConfig(epochs=1, batch_size=4, pairs=True, lr=.01, warmup=0, device='cpu', precision='fp32', checkpoint_every=1)
    whole = fresh(data.num_ids, **SWITCHES[kind])
    history = train(whole, data, how, tmp_path/'whole', progress=False)
    class Stop(Exception): pass
    stopped = fresh(data.num_ids, **SWITCHES[kind])
    passes, run = [], stopped.forward_train
    def twice(*a):
        passes.append(1)
        if len(passes) > 2: raise Stop
        return run(*a)
    stopped.forward_train = twice
    with pytest.raises(Stop): train(stopped, data, how, tmp_path/'parts', progress=False)
    again = fresh(data.num_ids, **SWITCHES[kind])
    rest = train(again, data, how, tmp_path/'parts', progress=False)
    there = again.state_dict()
    assert [r['loss'] for r in rest] == [r['loss'] for r in history] and all(torch.equal(v, there[k]) for k, v in whole.state_dict().items())


def test_weights_in_all_layers_are_the_equations(data):
    "One pair through the trunk by hand; in a training batch, padded, the same; and unasked, each scene by itself."
    images, targets, both = a_pair(data)
    net = opinionated(qsse='all').eval()
    (a, b), excites = (net.batch([i])[0] for i in images), [*net.early_excite, net.squeeze_excite]
    with torch.no_grad():
        q, s = net.stem(a), net.stem(b)
        for j in range(3):
            q, s = net.blocks[j](q), net.blocks[j](s)
            w = excites[j].excite(torch.cat([q.mean((2, 3)), s.mean((2, 3))], 1))
            q, s = q * w[:, :, None, None], s * w[:, :, None, None]
        scene, asks = net.look(images[1]), net.ask([images[0]], [targets[0]['boxes'][:1]])
        features, box, query = net.meet(scene, asks)
        torch.testing.assert_close(features, s, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(box, net.roi_head.pooler(q, [targets[0]['boxes'][:1]]).mean((2, 3)), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(query, F.normalize(net.roi_head.read(net.roi_head.pooler(q, [targets[0]['boxes'][:1]])).embedding, dim=1), rtol=1e-3, atol=1e-4)
        batch, _ = net.batch(list(images))
        together, patch = net.pairs(batch, torch.tensor([1, 0]), [t['boxes'][:1] for t in targets])
        torch.testing.assert_close(together[1:], s, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(net.trunk(batch)[:1], net.guide(net.first(a), net.first(a))[0], rtol=1e-3, atol=1e-4)
        taller = [images[0], F.pad(images[1], (0, 40, 0, 24), value=.7)]      # scene 0 is padded in this batch
        padded = net.trunk(net.batch(taller)[0])[:1, :, :4, :8]               # away from the padding's border
        torch.testing.assert_close(padded, net.trunk(a)[:, :, :4, :8], rtol=.05, atol=.05)
    assert not torch.allclose(features, net.look(images[1]).features.mean() + features) and not torch.allclose(s, net.trunk(b), atol=1e-3)


def test_a_checkpoint_of_the_trunk_starts_all_layers(data):
    "The last block's weights keep their name, the early ones begin at 1: the same network."
    images, targets, _ = a_pair(data)
    one, deep = opinionated(), fresh(qsse='all')
    missing = deep.load_state_dict(one.state_dict(), strict=False)
    assert {k.split('.')[0] for k in missing.missing_keys} == {'early_excite'} and not missing.unexpected_keys
    asked = [targets[0]['boxes'][:1]]
    with torch.no_grad():
        a, b = (m.eval().search([images[1]], images[0], asked[0][0])[0] for m in (one, deep))
        for k in a: torch.testing.assert_close(a[k], b[k], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize('change,message', [(dict(qsse='some'), "qsse='some': expected one of trunk, all, none"), (dict(qsse=False), 'qsse=False'), (dict(qrpn='no'), "qrpn='no': expected True or False"),
                                            (dict(qsim=0), 'qsim=0'), (dict(qsse='all', transformer=True), 'spatial transformer')])
def test_switches_that_mean_nothing_are_refused(change, message):
    with pytest.raises(ValueError, match=message): fresh(**change)


def test_a_recipe_sets_the_switches(data):
    from person_search_nb.presets import make_recipe
    assert make_recipe('qeeps', SPEC, 'tiny', qsse='all', qrpn=False, qsim=False).net.items() >= dict(qsse='all', qrpn=False, qsim=False).items()


def test_a_fresh_one_is_oim(data):
    images, targets, _ = a_pair(data)
    oim = build_model('oim', 10, width=0.125, rpn_channels=16, roi_size=7).eval()
    net = fresh(proposals=(100, 50), detections=30).eval()
    assert {k.split('.')[0] for k in net.load_state_dict(oim.state_dict(), strict=False).missing_keys} == {'squeeze_excite', 'query_rpn', 'similarity'}
    with torch.no_grad():
        for a, b in zip(net(list(images)), oim(list(images))): assert all(torch.equal(a[k], b[k]) for k in b)
        assert torch.equal(net.embed([images[0]], [targets[0]['boxes']]), oim.embed([images[0]], [targets[0]['boxes']]))


def test_padding_changes_no_descriptor(data):
    net = fresh().eval()
    alone, beside = net.batch([data[0][0]])[0], net.batch([data[0][0], torch.rand(3, 150, 200)])[0]
    with torch.no_grad(): torch.testing.assert_close(net.squeeze(alone, net.base(alone)), net.squeeze(beside, net.base(beside))[:1], rtol=.02, atol=.02)
    grey = net.batch([net.mean[0].expand(3, 40, 40).contiguous()])[0]
    assert net.squeeze(grey, net.base(grey)).isfinite().all()  # a scene that looks like padding


def test_cached_search_is_the_plain_one(search):
    gallery, queries = search
    net = opinionated().eval()
    found = run_queries(net, gallery, queries, batch_size=3, progress=False)
    assert (np.diff(found['det_query']) >= 0).all() and len(found['similarity'])
    candidates = search_truth(queries, gallery)['candidates']
    for q in range(len(queries)):
        image, box, _ = queries[q]
        scenes = [s for s in candidates[q] if s >= 0]
        each = net.search([gallery.image(s) for s in scenes], image, box[0])
        rows = found['det_query'] == q
        assert found['det_image'][rows].tolist() == [s for s, f in zip(scenes, each) for _ in f['boxes']]
        for key, name, tol in (('det_boxes', 'boxes', .05), ('det_scores', 'scores', 1e-3), ('similarity', 'similarity', 1e-2)):
            np.testing.assert_allclose(found[key][rows], torch.cat([f[name] for f in each]), atol=tol, rtol=1e-3)


def test_neutral_guidance_is_the_ordinary_evaluation():
    spec = 'synth:tiny?test_scenes=10&test_ids=10&queries=8&gallery=5&size=128x208&train_scenes=4&train_ids=8'
    gallery, queries = (open_dataset(spec, part, progress=False, cache=part == 'gallery', workers=0) for part in ('gallery', 'query'))
    net = fresh(proposals=(100, 100), detections=60, nms_threshold=.7)  # untrained: many boxes, of people's sizes, so that some are right
    net.rpn.anchors.sizes *= .4
    torch.nn.init.normal_(net.score.weight, std=2.)
    scores = []
    for net.min_height in (0., 40.):
        guided, plain = (of(net, gallery, queries, progress=False, score_threshold=.1) for of in (evaluate_queries, evaluate))
        assert guided['mAP'] > 0
        for k in guided: assert guided[k] == plain[k] if k == 'subsets' else guided[k] == pytest.approx(plain[k], abs=1e-9), k
        scores.append(guided)
    assert scores[0] != scores[1]


def test_scores_of_made_up_detections(search):
    "Every query finds its people perfectly in detections of its own, which the others do not see."
    gallery, queries = search
    truth = search_truth(queries, gallery)
    n = len(truth['gt_query'])
    by = np.argsort(truth['gt_query'], kind='stable')
    found = dict(det_query=truth['gt_query'][by], det_image=truth['gt_image'][by], det_boxes=truth['gt_boxes'][by], det_scores=np.ones(n, np.float32), similarity=np.ones(n, np.float32))
    m = match_queries(found, queries, gallery)
    assert per_query(m)[0].tolist() == [float(p > 0) for p in m.positives] and m.query.tolist() == sorted(m.query.tolist()) and len(m.missed) == 0
    nothing = {k: v[:0] for k, v in found.items()}
    m = match_queries(nothing, queries, gallery)
    assert not per_query(m)[0].any() and len(m.missed) == len({*zip(truth['gt_query'].tolist(), truth['gt_image'].tolist())})


def test_mode_is_as_before_and_save_and_load(tmp_path, search):
    gallery, queries = search
    net = opinionated().train()
    image, box, _ = queries[0]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    one = net.search([gallery.image(0)], image, box[0])[0]
    assert net.training and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    save_model(net, tmp_path/'qeeps.safetensors')
    again = load_model(tmp_path/'qeeps.safetensors')
    assert type(again) is type(net) and all(torch.equal(a, b) for a, b in zip(one.values(), again.search([gallery.image(0)], image, box[0])[0].values()))


@pytest.mark.parametrize('kind', SWITCHES)
def test_costs_are_what_runs(kind, data):
    "Scene, query and pair against torch's own count."
    from torch.utils.flop_counter import FlopCounterMode
    net = fresh(**SWITCHES[kind], score_threshold=0.).eval()      # someone is always found
    proposed, propose = [], net.rpn.propose
    net.rpn.propose = lambda *a: proposed.append(propose(*a)) or proposed[-1]
    def count(f):
        with torch.no_grad(), FlopCounterMode(display=False) as counter: out = f()
        return out, counter.get_total_flops() // 2
    scene, of_scene = count(lambda: net.look(data.image(0)))
    asked, of_query = count(lambda: net.ask([data.image(1)], [torch.tensor([[10., 10, 40, 90]])]))
    found, of_pair = count(lambda: net.search_scene(scene, asked)[0])
    p, n = len(proposed[0][0][0]), len(found['boxes'])
    parts = pair_macs(net, scene.size, p + n)
    assert n and [of_scene, of_query, of_pair] == [parts['scene'], parts['query'], parts['pair'] - net.id_loss.dim * (p if net.qsim else p + n)]
    assert parts['pair'] == sum(v for k, v in parts.items() if k not in ('scene', 'query', 'pair'))


def test_costs():
    net = build_model('qeeps', 10, width=.25)
    parts = pair_macs(net, (400, 600))
    assert pair_macs(net, (400, 600), 10)['head'] * 21 == pair_macs(net, (400, 600), 20)['head'] * 11  # the query's own pass included
    assert search_macs(net, 3, 7, (400, 600), each=7) == search_macs(net, 3, 7, (400, 600))
    g = search_macs(net, np.array([[1], [2]]), np.array([1, 2, 3]), (400, 600))[0].tolist()
    assert g[0][2] - g[0][1] == g[0][1] - g[0][0] and (g[1][1] - g[1][0]) - (g[0][1] - g[0][0]) == parts['pair']


def test_costs_of_the_variants():
    "28 times the work of embeddings behind the trunk, 40 to 53 in all layers (with what is kept of a scene in between); with all parts off it is the embeddings' own."
    times = lambda kept=True, **kw: (lambda g, p: g / p)(*search_macs(build_model('qeeps', 1, **kw), 2900, 6978, each=100, kept=kept))
    behind, kept, nothing = times(), times(qsse='all'), times(False, qsse='all')
    assert 27 < behind < 28.5 and 40 < kept < 50 and 52 < nothing < 54, (behind, kept, nothing)
    off = build_model('qeeps', 1, **OFF)
    guided, plain = search_macs(off, 2900, 6978, each=100)
    assert guided - plain == 2900 * 100 * off.detections * 256                 # the dot products
    assert times(qsse='none', qrpn=False) == pytest.approx(1, abs=.01) and 10 < times(qsse='none') < behind


@pytest.mark.parametrize('change', [dict(id_loss='rss'), dict(id_loss='none'), dict(matching='euclidean')])
def test_what_it_cannot_do_is_said(change):
    with pytest.raises(ValueError, match='unit vectors'): fresh(**change)


def test_a_bad_query_box_is_said():
    with pytest.raises(ValueError, match='boxes of image 0'): fresh().search([torch.rand(3, 64, 64)], torch.rand(3, 64, 64), torch.tensor([30., 5, 10, 40]))


def _two_processes():
    "Losses and gradients of one of two processes: a pair that shares someone here, strangers there."
    import torch.distributed as dist
    data = open_dataset(SPEC, 'train', progress=False)
    images, targets, _ = a_pair(data)
    if dist.get_rank(): targets = [EMPTY, EMPTY]
    net = fresh().train()
    losses = net(list(images), list(targets))
    sum(losses.values()).backward()
    return {k: v.item() for k, v in losses.items()}, all(p.grad is not None for p in net.parameters())


def test_processes_wait_for_each_other_with_and_without_pairs():
    from person_search_nb.distributed import spawn
    (with_pair, a), (without, b) = spawn(_two_processes, 2)
    assert a and b and without['query_rpn'] == 0 == without['query_sim'] and all(np.isfinite(v) for v in (*with_pair.values(), *without.values()))
    assert with_pair['query_rpn'] > .7  # log 2 over its own anchors, twice: the mean over processes divides by two
