"The demo: what its table says and does not say, and how its milliseconds are measured."
from dataclasses import asdict, replace
from unittest import mock
import re

import pytest
import torch

from person_search_nb.demo import _Demo, build_pair, DemoConfig, gain_note, GAINS, ROWS, shortest_in_turns, start_note
from person_search_nb.model_files import shipped_trunk
from person_search_nb.models import load_model

TINY = 'synth:tiny?train_scenes=8&test_scenes=8&train_ids=8&test_ids=4&queries=2&gallery=4&cameras=2'


class Toy(torch.nn.Module):
    "Takes as long as it is told to, on a clock of its own."
    def __init__(self, clock, name, ms):
        super().__init__()
        self.p, self.clock, self.name, self.ms = torch.nn.Parameter(torch.zeros(1)), clock, name, iter(ms)

    def forward(self, images):
        self.clock['now'] += next(self.ms) / 1000
        self.clock['called'].append(self.name)


def test_networks_are_measured_in_turns_and_the_shortest_counts():
    "Two equal networks, one of them measured in a busy moment of the machine: both rows say the same."
    clock = dict(now=0., called=[])
    toys = dict(plain=Toy(clock, 'plain', [9, 90, 90, 5, 7]), taught=Toy(clock, 'taught', [9, 95, 91, 6, 5]))
    with mock.patch('person_search_nb.costs.time.perf_counter', lambda: clock['now']):
        ms = shortest_in_turns(toys, [torch.zeros(3, 4, 4)], rounds=4)
    assert clock['called'] == ['plain', 'taught'] * 5
    assert ms == pytest.approx(dict(plain=5, taught=5))


def test_what_distillation_brought_is_what_was_measured(root):
    "The gains that the report names, and the names of the rows, are those of benchmarks/demo.md."
    text = (root/'benchmarks/demo.md').read_text()
    for name in ROWS.values(): assert f'| {name} |' in text
    each = text[text.index('mAP of each'):]
    heads = [h.strip() for h in re.search(r'^\| seed \|.*$', each, re.M)[0].split('|')]
    for seed, (plain, taught) in GAINS.items():
        cells = dict(zip(heads, (c.strip() for c in re.search(rf'^\| {seed} \|.*$', each, re.M)[0].split('|'))))
        assert (float(cells[ROWS['student_plain']]), float(cells[ROWS['student_hdl']])) == (plain, taught)
        assert f'{taught - plain:+.3f}' in gain_note(.1, .3)
    assert '+0.200 mAP here' in gain_note(.1, .3)


def test_both_students_are_the_same_network_and_only_the_teacher_differs(tmp_path):
    "Same weights, and the same recipe of their trainings; the start that is named is the start that is had."
    demo = _Demo(mini := DemoConfig(data=TINY, teacher_epochs=1, student_epochs=1), tmp_path)
    demo.make()
    nets = demo.networks()
    a, b = nets['student_plain'].state_dict(), nets['student_hdl'].state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    shipped = load_model(shipped_trunk('hdl-student-fast')).state_dict()
    def same(net): return [torch.equal(v, shipped[k]) for k, v in net.state_dict().items() if k in shipped and v.shape == shipped[k].shape and v.ndim > 1]
    assert not any(same(nets['student_hdl']))
    start = replace(mini, student_trunk='hdl-student-fast')
    assert sum(same(build_pair(start, 6, [10. * k for k in range(2, 13)])[1]())) > 20
    assert 'random weights' in start_note(asdict(mini)) and 'hdl-student-fast' in start_note(asdict(start))
