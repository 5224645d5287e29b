"The demo: what its table says and does not say, and how its milliseconds are measured."
from dataclasses import asdict, replace
from unittest import mock
import re

import pytest
import torch

from person_search_nb.demo import DemoConfig, row_names, ROWS, shortest_in_turns, stage_table
from person_search_nb.demo import start_note, SWAPPED


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


def test_what_each_stage_gave_is_what_was_measured(root):
    "The report's second table, and the names of the rows, are those of benchmarks/demo.md."
    text = (root/'benchmarks/demo.md').read_text()
    for trunk, values in SWAPPED.items():
        row = re.search(rf'^ *\| {trunk} \|(.*)\|$', text, re.M)[1]
        assert [float(re.match(r' *([\d.]+)', cell)[1]) for cell in row.split('|')] == list(values)
        assert f'{values[2] - values[1]:+.3f}' in stage_table()
    for name in ROWS.values(): assert f'| {name} |' in text


def test_a_taught_trunk_is_named_only_where_there_is_one():
    config = DemoConfig()
    for other in (replace(config, hdl_trunk=config.plain_trunk), replace(config, pretrained=False)):
        assert 'taught' not in row_names(asdict(other))['student_hdl'] + start_note(asdict(other))
    assert 'taught trunk' in row_names(asdict(config))['student_hdl'] and 'taught by a teacher' in start_note(asdict(config))
