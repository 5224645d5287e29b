import assert from 'node:assert/strict';
import test from 'node:test';
import { DEFAULTS, fromQuery, toQuery } from '../../person_search_nb/page/state.js';

test('an address brings back what it was made from', () => {
  const state = { ...DEFAULTS, scene: 3, quantity: 'x', opacity: 0.35, at: '1,2,30,40' };
  assert.deepEqual(fromQuery(toQuery(state, 'wasm')), { state, ignored: [], runtime: 'wasm' });
  assert.equal(toQuery(DEFAULTS), '');
});

test('what cannot be is named and left out', () => {
  const query = '?scene=5&level=9&quantity=<b>&runtime=cuda&at=1,2,3&a=1&constructor=2&__proto__=1';
  const { state, ignored, runtime } = fromQuery(query, 5);
  assert.deepEqual(state, DEFAULTS);
  assert.deepEqual(ignored, ['scene', 'level', 'quantity', 'runtime', 'at', 'a',
    'constructor', '__proto__']);
  assert.deepEqual(fromQuery('?at=9,9,0,0').ignored, ['at']);
  assert.equal(runtime, '');
});
