"Training: killed at any moment it ends as if it had never been; several processes end as one."
import json
import os
import random
import signal
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from person_search_nb import files
from person_search_nb.distributed import all_gather, broadcast, mean_number, world_size, rank
from person_search_nb.distributed import rank_slice, run_jobs, spawn
from person_search_nb.datasets import open_dataset
from person_search_nb.evaluation import evaluate
from person_search_nb.checkpoints import load_tree, save_tree
from person_search_nb.settings import TrainConfig
from person_search_nb.runs import CHECKPOINT, plot_losses, read_log
from person_search_nb.steps import NonFiniteLoss
from person_search_nb.training import train
from person_search_nb.crops import crop_dataset, CropIdentity
from person_search_nb.distillation import HDL
from person_search_nb.models import build_model, load_model

SPEC = 'synth:tiny?train_scenes=8&test_scenes=6&train_ids=12&test_ids=4&queries=4&gallery=4&size=96x160'
HEIGHTS = [14., 20, 28, 36, 44, 52, 62, 74, 88, 104, 124]


def scenes(split='train'): return open_dataset(SPEC, split, progress=False)


def small(num_ids, name='hdl-student-fast', seed=0, **kw):
    torch.manual_seed(seed)
    return build_model(name, num_ids, heights=HEIGHTS, width=0.125, **dict(rois_per_image=8, proposals=(30, 20)) | kw)


def config(**kw): return TrainConfig(**dict(epochs=3, batch_size=4, lr=0.01, warmup=2, precision='fp32', device='cpu') | kw)


def same(a, b): return all(torch.equal(v, b[k]) for k, v in a.items()) and a.keys() == b.keys()


# killed ---------------------------------------------------------------------------------------------------------------

def killed(out, kills):
    "Train in a child that is killed with SIGKILL again and again: at random moments, and while a checkpoint is being written."
    torch.set_num_threads(1)
    data, lots = scenes(), random.Random(0)
    for i in range(len(data)): data[i]  # drawn once, not by each child
    unbroken = small(data.num_ids, id_loss='oim')
    whole = config(epochs=10, checkpoint_every=1, ema=0.9, norm='shared')

    def train_on(slow):
        if slow:
            fsync = os.fsync
            def write_slowly(f):
                if stat.S_ISREG(os.fstat(f).st_mode): os.write(writing, b'w'); time.sleep(0.2)  # not the folder's new name
                fsync(f)
            files.os.fsync = write_slowly
        begun = (out / CHECKPOINT).exists()
        train(small(data.num_ids, id_loss='oim', seed=7 if begun else 0), data, whole, out=out, progress=False)  # other weights: the checkpoint's replace them

    done = []
    for k in range(kills):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try: train_on(k % 2)
            finally: os._exit(0)
        os.close(writing)
        if k % 2:
            for _ in range(lots.randint(2, 4)): os.read(reading, 1)  # the n-th write has begun
            time.sleep(0.1)
        else: time.sleep(lots.uniform(0.2, 1.0))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(reading)
        done.append((os.WIFSIGNALED(status), load_tree(out / CHECKPOINT)['step'] if (out / CHECKPOINT).exists() else -1, bool(list(out.glob(CHECKPOINT + '.*.part')))))
    history = train(small(data.num_ids, id_loss='oim', seed=7), data, whole, out=out, progress=False)
    expected = train(unbroken, data, whole, progress=False)
    state = load_tree(out / CHECKPOINT)
    (out / 'found.json').write_text(json.dumps(dict(kills=done, steps=state['step'], losses=[[h['loss'] for h in x] for x in (history, expected)],
        same=same(unbroken.state_dict(), state['mean']), model=same(unbroken.state_dict(), load_model(out / 'model.safetensors').state_dict()))))


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='forks')
def test_killed_at_any_moment(tmp_path, child):
    run = child(killed, tmp_path, 6)
    run.join()
    assert run.exitcode == 0
    r = json.loads((tmp_path / 'found.json').read_text())
    assert all(dead for dead, *_ in r['kills']) and len(r['kills']) == 6
    assert any(part for *_, part in r['kills'])                                 # at least one died in the middle of a write
    steps = [step for _, step, _ in r['kills']]
    assert steps == sorted(steps) and 0 < steps[-1] < r['steps'] == 20          # it got on, and was not finished too early to prove something
    assert r['losses'][0] == r['losses'][1] and r['same'] and r['model']


# several processes ----------------------------------------------------------------------------------------------------

def learn(id_loss, teacher, **change):
    data = scenes()
    net = small(data.num_ids, id_loss=id_loss, rois_per_image=400)
    net.rpn.batch_size = 10 ** 6                                                # every region: nothing is drawn
    model = (HDL(small(data.num_ids, 'hdl-teacher', seed=1), net) if teacher else net).double()  # float32 decides near ties between proposals by its last digit
    history = train(model, data, config(norm='shared', warmup=0, epochs=2, **change), progress=False)
    held = [open_dataset(SPEC, part, progress=False) for part in ('gallery', 'query')]
    return [{k: v for k, v in h.items() if k != 'seconds'} for h in history], net.state_dict(), evaluate(net, *held, batch_size=2, progress=False)


@pytest.mark.parametrize('id_loss,teacher', [('oim', False), ('softmax', True)])
def test_two_processes_are_one(id_loss, teacher):
    one, (left, right) = learn(id_loss, teacher), spawn(learn, 2, id_loss, teacher)
    assert same(left[1], right[1]) and left[2] == right[2]                      # the two agree to the last bit
    for a, b in zip(one[0], left[0]):
        for k, v in a.items(): assert b[k] == pytest.approx(v, abs=1e-6), k
    for k, v in one[1].items(): torch.testing.assert_close(left[1][k], v, rtol=0, atol=1e-6, msg=lambda m: f'{k}: {m}')


def cut_outs():
    data = scenes()
    net = small(data.num_ids, 'e2e-rss', rpn_channels=16)
    history = train(CropIdentity(net), crop_dataset(data, (64, 32)), config(epochs=1, batch_size=8), progress=False)
    return len(history), net.state_dict()


def test_two_processes_on_cut_outs():
    "Parts that take no part are not waited for."
    left, right = spawn(cut_outs, 2)
    assert left[0] == right[0] > 0 and same(left[1], right[1])


def grade(folder):
    net = load_model(Path(folder) / 'model.safetensors')
    return evaluate(net, *(open_dataset(SPEC, part, progress=False) for part in ('gallery', 'query')), batch_size=4, progress=False)


def test_evaluation_in_parts_is_exact(tmp_path):
    data = scenes()
    train(small(data.num_ids), data, config(), out=tmp_path, progress=False)
    one = grade(tmp_path)
    assert spawn(grade, 2, tmp_path) == [one, one]


def work(out):
    data = scenes()
    train(small(data.num_ids), data, config(epochs=1, norm='shared'), out=out, progress=False)


def launch(out):
    "What a notebook's cell does."
    from accelerate import notebook_launcher
    torch.set_num_threads(1)
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]  # two tests at once do not meet
    notebook_launcher(work, (out,), num_processes=2, use_port=str(port))


def test_launched_from_a_notebook(tmp_path, child):
    "Two processes of `notebook_launcher` share the batches and leave one log and one model."
    pytest.importorskip('accelerate')
    run = child(launch, tmp_path/'two')
    run.join()
    assert run.exitcode == 0
    data = scenes()
    train(small(data.num_ids), data, config(epochs=1, norm='shared'), out=tmp_path/'one', progress=False)
    one, two = (read_log(tmp_path/n/'log.csv') for n in ('one', 'two'))
    assert [h['step'] for h in one] == [h['step'] for h in two] == [0, 1] and load_model(tmp_path/'two'/'model.safetensors')
    assert two[0]['loss'] == pytest.approx(one[0]['loss'], rel=.05)  # regions are drawn by each process for itself


def exchange(): return all_gather([10 * k for k in rank_slice(list(range(5)))]), broadcast(f'from {rank()}'), float(mean_number(rank() * 3)), world_size()


def test_exchange():
    assert spawn(exchange, 2) == [([0, 10, 20, 30, 40], 'from 0', 1.5, 2)] * 2


def fail():
    if rank() == 1: raise KeyError('of process one')
    return rank()


def test_an_error_in_a_process_is_raised():
    with pytest.raises(Exception, match='of process one'): spawn(fail, 2)


# what is written ------------------------------------------------------------------------------------------------------

def test_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch):
    data, calls = scenes(), []
    real = os.fsync
    def fsync(f):
        calls.extend([f] * stat.S_ISREG(os.fstat(f).st_mode))                           # folders are written through, too
        if len(calls) == 5: raise OSError(28, 'No space left on device')
        real(f)
    monkeypatch.setattr(files.os, 'fsync', fsync)
    with pytest.raises(OSError, match=r'checkpoint.safetensors: cannot be written \(No space left on device\); the file that was there before is intact'):
        train(small(data.num_ids), data, config(checkpoint_every=1), out=tmp_path, progress=False)
    monkeypatch.undo()
    assert load_tree(tmp_path / CHECKPOINT)['step'] == 2 and not list(tmp_path.glob('*.part'))
    resumed, whole = small(data.num_ids, seed=3), small(data.num_ids)
    train(resumed, data, config(checkpoint_every=1), out=tmp_path, progress=False)
    train(whole, data, config(), progress=False)
    assert same(whole.state_dict(), resumed.state_dict())


def test_a_folder_that_cannot_be_written_shows_at_once(tmp_path):
    (tmp_path / 'file').write_text('')
    data = scenes()
    with pytest.raises(OSError): train(small(data.num_ids), data, config(), out=tmp_path / 'file', progress=False)


def test_log_and_curves(tmp_path):
    data = scenes()
    history = train(small(data.num_ids), data, config(evaluate_every=1), out=tmp_path, progress=False, evaluate=lambda m: dict(mAP=0.25, subsets={}))
    assert read_log(tmp_path / 'log.csv') == history and len(history) == 6
    assert json.loads((tmp_path / 'scores.json').read_text()) == [dict(step=k, mAP=0.25) for k in (2, 4, 6)]
    assert (tmp_path / 'curves.png').read_bytes()[:4] == b'\x89PNG' and (tmp_path / 'best.safetensors').exists()
    assert len(plot_losses(history, [dict(step=2, mAP=.1)]).axes) == 2
    board = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator').EventAccumulator(str(tmp_path / 'tensorboard')).Reload()
    assert [(e.step, e.value) for e in board.Scalars('loss')] == [(h['step'], pytest.approx(h['loss'])) for h in history]
    assert [e.step for e in board.Scalars('scores/mAP')] == [2, 4, 6] and {'lr', 'id', 'rpn_box'} <= set(board.Tags()['scalars'])


def test_killed_while_evaluating_it_evaluates_again(tmp_path):
    data, asked = scenes(), []
    def evaluate(model):
        asked.append(len(asked))
        if len(asked) == 1: raise KeyboardInterrupt
        return dict(mAP=0.5)
    with pytest.raises(KeyboardInterrupt): train(small(data.num_ids), data, config(checkpoint_every=2), out=tmp_path, progress=False, evaluate=evaluate)
    train(small(data.num_ids), data, config(checkpoint_every=2), out=tmp_path, progress=False, evaluate=evaluate)
    assert json.loads((tmp_path / 'scores.json').read_text()) == [dict(step=6, mAP=0.5)]


def stopped_at_the_end(out, told=None):
    "Does a training that gets a signal in its last evaluation say so?"
    def evaluate(model):
        if told is None or rank() == 1: signal.raise_signal(signal.SIGTERM)
        return dict(mAP=0.5)
    data = scenes()
    try: train(small(data.num_ids), data, config(), out=out, progress=False, evaluate=evaluate)
    except KeyboardInterrupt: return True
    return False


def test_stopped_in_the_last_evaluation_it_is_whole_and_stops(tmp_path):
    "The run has nothing left to do, but what called it (a table of many runs) is stopped, too; called again, it gives its history."
    assert stopped_at_the_end(tmp_path) and (tmp_path / 'model.safetensors').exists()
    assert json.loads((tmp_path / 'scores.json').read_text()) == [dict(step=6, mAP=0.5)]
    data = scenes()
    assert len(train(small(data.num_ids), data, config(), out=tmp_path, progress=False, evaluate=lambda model: 1 / 0)) == 6


def test_stopped_in_the_last_evaluation_all_processes_stop(tmp_path):
    assert spawn(stopped_at_the_end, 2, tmp_path, 'only the second is told') == [True, True]


def begin(job, device, threads):
    "A job that says that it began; the first is stopped, the others take their time."
    folder, k = job
    (folder / str(k)).touch()
    if k == 0: raise KeyboardInterrupt
    time.sleep(5)


def test_after_a_stop_no_job_begins(tmp_path):
    with pytest.raises(KeyboardInterrupt): run_jobs(begin, [(tmp_path, k) for k in range(6)], workers=2, progress=False)
    assert {p.name for p in tmp_path.iterdir()} <= {'0', '1'}


class Broken(nn.Module):
    def __init__(self, model, at): super().__init__(); self.student, self.left = model, at
    def forward(self, images, targets):
        self.left -= 1
        losses = self.student(images, targets)
        return losses | dict(id=losses['id'] * float('nan')) if self.left < 0 else losses


def test_non_finite_loss_names_the_scenes(tmp_path):
    data = scenes()
    with pytest.raises(NonFiniteLoss) as e: train(Broken(small(data.num_ids), 3), data, config(checkpoint_every=1), out=tmp_path, progress=False)
    assert 'at step 3' in str(e.value) and sum(name in str(e.value) for name in data.names) == 4
    assert load_tree(tmp_path / CHECKPOINT)['step'] == 3 and torch.isfinite(load_tree(tmp_path / CHECKPOINT)['model']['score.weight']).all()


def test_grouped_batches_resume(tmp_path):
    data, made = scenes(), config(group=True, augment='colour', accumulate=2, freeze=1)
    whole, resumed = small(data.num_ids), small(data.num_ids)
    train(whole, data, made, progress=False)

    class Stop(Broken):
        def forward(self, images, targets):
            self.left -= 1
            if self.left == -1: import signal; signal.raise_signal(signal.SIGINT)
            return self.student(images, targets)
    with pytest.raises(KeyboardInterrupt): train(Stop(small(data.num_ids), 5), data, made, out=tmp_path, progress=False)
    assert load_tree(tmp_path / CHECKPOINT)['step'] == 4 or load_tree(tmp_path / CHECKPOINT)['step'] == 3
    train(resumed, data, made, out=tmp_path, progress=False)
    assert same(whole.state_dict(), resumed.state_dict())


def test_tree_keeps_types(tmp_path):
    tree = dict(a=[1, 2.5, None, 'ä'], b={3: torch.arange(3), 'x': {}}, c=torch.tensor(True), d=torch.ones(2, 3).t())
    save_tree(tmp_path / 't', tree)
    got = load_tree(tmp_path / 't')
    assert got['a'] == tree['a'] and got['b'][3].tolist() == [0, 1, 2] and got['b']['x'] == {} and got['c'].item() is True and torch.equal(got['d'], tree['d'])


def test_parts_have_rates_decays_and_clipping_of_their_own():
    "CLSA's two networks: the optimizer's groups, the rate at every step, and a clip that one part's gradient does not share with the other's."
    from person_search_nb.steps import clip_gradients, make_optimizer
    net = torch.nn.ModuleDict(dict(body=torch.nn.Linear(3, 3), reid=torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))))
    config = TrainConfig(lr=0.001, weight_decay=1e-4, warmup=0, epochs=10, milestones=(4,), clip=0., parts=dict(reid=dict(lr=0.01, weight_decay=1e-5, milestones=[8], clip=1.)))
    opt = make_optimizer(net, config)
    assert {(g['part'], g['weight_decay'], len(g['params'])) for g in opt.param_groups} == {('', 1e-4, 1), ('', 0., 1), ('reid', 1e-5, 1), ('reid', 0., 3)}
    rates = [[config.of_part(p).lr_at(s, 1) for s in (3, 4, 7, 8)] for p in ('', 'reid')]
    assert torch.allclose(torch.tensor(rates), torch.tensor([[1e-3, 1e-4, 1e-4, 1e-4], [1e-2, 1e-2, 1e-2, 1e-3]]))
    for p in net.parameters(): p.grad = torch.full_like(p, 5.)
    clip_gradients(opt, config)
    norm = lambda part: torch.cat([p.grad.flatten() for p in net[part].parameters()]).norm().item()
    assert abs(norm('reid') - 1) < 1e-4 and net['body'].weight.grad.eq(5).all()
    with pytest.raises(ValueError, match='can have its own'): TrainConfig(parts=dict(reid=dict(epochs=3))).of_part('reid')
    with pytest.raises(ValueError, match="names 'head', of which nothing is trained"): make_optimizer(net, TrainConfig(parts=dict(head=dict(lr=1.))))


def test_a_network_with_parts_resumes_to_the_same_numbers(tmp_path):
    data, build = scenes(), lambda seed: (torch.manual_seed(seed), build_model('clsa', 12, width=0.125, rpn_channels=16, crop_size=(64, 40), anchors='pedestrian'))[1]
    config = TrainConfig(steps=4, batch_size=4, milestones=(2,), warmup=0, precision='fp32', device='cpu', parts=dict(reid=dict(lr=0.02, clip=1.)), checkpoint_every=2)
    whole, half, second = build(0), build(0), build(9)
    history = train(whole, data, config, tmp_path / 'whole', progress=False)
    assert len(history) == 4 and history[-1]['lr'] == pytest.approx(0.0005)
    def stop(net): raise KeyError('stop here')
    with pytest.raises(KeyError): train(half, data, replace(config, evaluate_every=1.5), tmp_path / 'half', progress=False, evaluate=stop)
    train(second, data, config, tmp_path / 'half', progress=False)
    there = second.state_dict()
    assert all(torch.equal(v, there[k]) for k, v in whole.state_dict().items())


@pytest.mark.parametrize('norm', ['frozen-trunk', 'frozen-backbone'])
def test_frozen_norms_are_constant_in_weights_and_statistics_and_others_are_not(norm):
    torch.manual_seed(0)
    data, net = scenes(), build_model('oim', 12, width=0.125, rpn_channels=16, anchors='pedestrian')
    before = {k: v.clone() for k, v in net.state_dict().items()}
    train(net, data, TrainConfig(steps=2, batch_size=4, warmup=0, lr=0.05, norm=norm, frozen=('rpn.hidden',), precision='fp32', device='cpu'), progress=False)
    moved = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    trunk = [k for k in before if k.startswith(('stem.1.', 'blocks.0.', 'blocks.1.', 'blocks.2.')) and '.bn' in k or k.startswith('stem.1.')]
    head = [k for k in before if k.startswith('blocks.3.') and '.bn' in k]
    assert trunk and not moved & set(trunk)
    assert bool(moved & set(head)) == (norm == 'frozen-trunk')
    assert {'embedding_norm.weight', 'embedding_norm.running_mean', 'stem.0.weight', 'rpn.objectness.weight'} <= moved and not {k for k in moved if k.startswith('rpn.hidden')}
    with pytest.raises(ValueError, match="frozen names 'nose'"): train(net, data, TrainConfig(steps=1, batch_size=4, frozen=('nose',), device='cpu'), progress=False)


def test_no_clip_is_no_clip():
    "A gradient far longer than any usual limit reaches the weights whole."
    class Steep(torch.nn.Module):
        def __init__(self): super().__init__(); self.w = torch.nn.Parameter(torch.ones(1, 1))
        def forward(self, images, targets): return dict(loss_=1e4 * self.w.sum())
    data = scenes()
    moves = {}
    for clip in (0., 10.):
        net = Steep()
        train(net, data, TrainConfig(steps=1, batch_size=4, warmup=0, lr=1e-3, weight_decay=0., momentum=0., clip=clip, precision='fp32', device='cpu'), progress=False)
        moves[clip] = 1 - net.w.item()
    assert abs(moves[0.] - 10) < 1e-3 and abs(moves[10.] - 0.01) < 1e-5
