"QEEPS: parts as their formulas, pairs that share people, guidance that is exact where it says nothing, and errors that help."
import numpy as np, pytest, torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from person_search_nb.datasets import Scene, SceneDataset, open_dataset
from person_search_nb.evaluation import evaluate, match_search, per_query, search_truth
from person_search_nb.loading import PairSampler, SceneBatches, SceneLoader
from person_search_nb.models import build_model, load_model, save_model
from person_search_nb.qeeps import (Excitation, QueryRPN, QuerySimilarity, QuerySqueezeExcite, evaluate_queries, match_queries, pair_macs, pick_queries,
                                    run_queries, search_macs)
from person_search_nb.training import TrainConfig, _items, train

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
    for part in (net.squeeze_excite, net.query_rpn, net.similarity):
        for p in part.parameters(): p.data += .3 * torch.randn_like(p)
    torch.nn.init.normal_(net.score.weight, std=2.)
    return net


def a_pair(data):
    "Two scenes that share somebody, and who they share."
    for i, a in enumerate(data.scenes):
        for j in range(i + 1, len(data)):
            both = np.intersect1d(a.person_id[a.person_id >= 0], data.scenes[j].person_id)
            if len(both): return *zip(data[i], data[j]), both.tolist()


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
    whole = list(_items(data, how, 0, 9))
    assert list(_items(data, how, 4, 9)) == whole[4:] and {i for b in whole[:3] for i, *_ in b} == set(range(12))
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
        net.rpn.batch_size = 10**6              # all anchors: nothing drawn by lot
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
    guided, plain = evaluate_queries(net, gallery, queries, progress=False, score_threshold=.1), evaluate(net, gallery, queries, progress=False, score_threshold=.1)
    assert guided['mAP'] > 0
    for k in guided: assert guided[k] == plain[k] if k == 'subsets' else guided[k] == pytest.approx(plain[k], abs=1e-9), k


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


def test_costs():
    net = build_model('qeeps', 10, width=.25)
    parts = pair_macs(net, (400, 600))
    assert parts['pair'] == sum(v for k, v in parts.items() if k not in ('trunk', 'pair'))
    assert pair_macs(net, (400, 600), 10)['head'] * 21 == pair_macs(net, (400, 600), 20)['head'] * 11  # the query's own pass included
    assert search_macs(net, 3, 7, (400, 600), each=7) == search_macs(net, 3, 7, (400, 600))
    g = [[search_macs(net, q, s, (400, 600))[0] for s in (1, 2, 3)] for q in (1, 2)]
    assert g[0][2] - g[0][1] == g[0][1] - g[0][0] and (g[1][1] - g[1][0]) - (g[0][1] - g[0][0]) == parts['pair']


@pytest.mark.parametrize('change', [dict(id_loss='rss'), dict(id_loss='none'), dict(matching='euclidean')])
def test_what_it_cannot_do_is_said(change):
    with pytest.raises(ValueError, match='unit vectors'): fresh(**change)


def test_a_bad_query_box_is_said():
    with pytest.raises(ValueError, match='boxes of image 0'): fresh().search([torch.rand(3, 64, 64)], torch.rand(3, 64, 64), torch.tensor([30., 5, 10, 40]))


def _two_processes():
    "Losses and gradients of one of two processes: a pair that shares somebody here, strangers there."
    import torch.distributed as dist
    data = open_dataset(SPEC, 'train', progress=False)
    images, targets, _ = a_pair(data)
    if dist.get_rank(): targets = [EMPTY, EMPTY]
    net = fresh().train()
    losses = net(list(images), list(targets))
    sum(losses.values()).backward()
    return {k: v.item() for k, v in losses.items()}, all(p.grad is not None for p in net.parameters())


def test_processes_wait_for_each_other_with_and_without_pairs():
    from person_search_nb.parallel import spawn
    (with_pair, a), (without, b) = spawn(_two_processes, 2)
    assert a and b and without['query_rpn'] == 0 == without['query_sim'] and all(np.isfinite(v) for v in (*with_pair.values(), *without.values()))
    assert with_pair['query_rpn'] > .7  # log 2 over its own anchors, twice: the mean over processes divides by two
