// The page: state, three networks, pictures, rankings. Everything runs in the browser.

import { iou } from './boxes.js';
import { distance } from './distance.js';
import { make } from './elements.js';
import { reader, toImage } from './files.js';
import { difference, scaled } from './heat.js';
import { Network } from './network.js';
import { Panel } from './panel.js';
import { rank } from './ranking.js';
import { openWith } from './runtime.js';
import { Sight } from './sight.js';
import { DEFAULTS, fromQuery, toQuery } from './state.js';
import { TOUR } from './tour.js';

const HITS = 10, PAUSE = 60, QUIET = 1000;  // people; ms
const MEANING = {
  picture: 'Boxes: people found; point at one for its score.',
  x: 'Bright: the length of the feature vector in a cell, in each picture from lowest to highest.',
  mean_a: 'Bright: attention A, mean over channels, in each picture from lowest to highest.',
  difference: 'Orange: the teacher has more energy than the student; purple: less. At unit length.',
};
const $ = id => document.getElementById(id);

// # What is loaded
const networks = {}, { runtime } = fromQuery(location.search);
const sight = new Sight(networks);
let data, sheet, state = { ...DEFAULTS };
let image, own = null, seen = {};  // own: a picture of the reader's
let chosen = null;                 // the box of whom we look for
let bytes = 0, work = Promise.resolve(), moves = 0, brought = 0, step = 0;

function say(text, bad = false) {
  $('status').textContent = text;
  $('status').classList.toggle('error', bad);
}

async function load() {
  const read = reader(n => {
    bytes += n;
    say(`Loading: ${(bytes / 1e6).toFixed(1)} MB.`);
  });
  data = JSON.parse(new TextDecoder().decode(await read('data.json')));
  sheet = await createImageBitmap(new Blob([await read(data.sheet.file)]));
  $('runtime').textContent = await openWith(runtime, read, async ({ ort, options }) => {
    for (const { name } of data.networks) {
      networks[name] = await Network.open(ort, read, name, options);
      const rows = await read(`${name}.people.bin`);
      networks[name].gallery = new Float32Array(rows.buffer);
    }
  });
  for (const s of data.scenes) s.picture = new Blob([await read(s.file)], { type: 'image/jpeg' });
  $('people').textContent = `${data.people.id.length}`;
  $('megabytes').textContent = (bytes / 1e6).toFixed(0);
}

// # Parts of the page
const panels = {};

function buildPanels() {
  for (const about of data.networks) {
    panels[about.name] = new Panel($('panels'), about, said => choose(about.name, said));
  }
}

// A person of one network. What was asked of people who are no longer there is not done.
async function choose(name, said) {
  await work;
  const panel = panels[name], late = said.edition !== panel.shown.edition;
  if (late) panel.picture.answered(true);
  else change({ by: name, person: sure(name)[said.choose] });
}

function buildScenes() {
  data.scenes.forEach((s, i) => {
    const b = make('button', $('scenes'), { type: 'button', title: s.name });
    make('img', b, { src: URL.createObjectURL(s.picture), alt: `scene ${i + 1}` });
    b.onclick = () => { own = null; change({ scene: i, by: 'teacher', person: 0 }); };
  });
}

function connect() {
  for (const id of ['tour', 'save', 'reset']) $(id).disabled = false;
  for (const e of $('controls').elements) {
    if (!e.name) continue;
    e.oninput = () => change({ [e.name]: e.type === 'range' ? Number(e.value) : e.value });
  }
  $('own').onchange = e => { if (e.target.files[0]) bring(e.target.files[0]); };
  addEventListener('dragover', e => { e.preventDefault(); document.body.classList.add('over'); });
  addEventListener('dragleave', () => document.body.classList.remove('over'));
  addEventListener('drop', e => {
    e.preventDefault();
    document.body.classList.remove('over');
    if (e.dataTransfer.files[0]) bring(e.dataTransfer.files[0]);
  });
  $('save').onclick = save;
  $('reset').onclick = () => { own = null; guide(-1); change({ ...DEFAULTS }); };
  $('tour').onclick = () => guide(0);
  $('guide-next').onclick = () => guide(step + 1);
  $('guide-back').onclick = () => guide(Math.max(0, step - 1));
  $('guide-end').onclick = () => guide(-1);
}

function guide(k) {
  step = k;
  $('guide').hidden = !(k in TOUR);
  if (!(k in TOUR)) return;
  const [wanted, text] = TOUR[k];
  $('guide-text').textContent = `${k + 1} of ${TOUR.length}. ${text}`;
  $('guide-next').disabled = k === TOUR.length - 1;
  $('guide-back').disabled = k === 0;
  own = null;
  change({ ...DEFAULTS, ...wanted });
}

// # State to page
function change(what) {
  if ('scene' in what || 'person' in what) chosen = null;  // else the same person, whatever moves
  Object.assign(state, what);
  showAddress();
  showControls();
  // one thing after another; of several moves that wait only the last is done
  const mine = ++moves;
  work = work.then(() => mine === moves && redraw()).catch(failed);
  return work;
}

function failed(error) {
  say(error.message, true);
  for (const panel of Object.values(panels)) panel.picture.answered(false);
}

// Of a picture of one's own an address says nothing: whoever opens it has not got it.
function showAddress() {
  history.replaceState(null, '', location.pathname + (own ? '' : toQuery(state, runtime)));
}

function showControls() {
  for (const e of $('controls').elements) {
    if (!e.name) continue;
    e.value = state[e.name];
    if (e.type === 'range') e.previousElementSibling.textContent = state[e.name];
  }
  $('meaning').textContent = MEANING[state.quantity];
  [...$('scenes').children].forEach((b, i) =>
    b.setAttribute('aria-pressed', !own && i === state.scene));
}

async function bring(file) {
  try {
    own = await toImage(file, data.scenes[0].width);
    brought++;
    await change({ by: 'teacher', person: 0 });
  } catch { say(`${file.name}: no picture that this browser can read`, true); }
}

async function redraw() {
  const from = performance.now();
  await look();
  const box = query();
  showAddress();
  for (const { name } of data.networks) {
    draw(name, box);
    await showHits(name, box);
  }
  setTimeout(after => after === moves && lookAhead(), QUIET, moves);
  say(box ? `Done in ${Math.max(1, Math.round(performance.now() - from))} ms.`
    : 'Nobody is found here: lower the minimum score, or take another scene.');
}

// # What the networks see
async function imageOf(scene) {
  return data.scenes[scene].image ??= await toImage(data.scenes[scene].picture);
}

async function look() {
  const names = data.networks.map(n => n.name);
  image = own || await imageOf(state.scene);
  seen = sight.entry(own ? `own ${brought}` : state.scene, state.attention);
  if (names.every(name => seen[name])) return;
  say('Looking.');
  for (const name of names) await sight.see(seen, name, image);
}

// What may be asked next: this picture under other attention, then the other scenes.
function likely() {
  const key = own ? `own ${brought}` : state.scene, here = own;
  const same = ['learned', 'off', 'teacher'].map(attention =>
    ({ key, attention, picture: () => here || imageOf(key) }));
  const others = data.scenes.map((_, i) =>
    ({ key: i, attention: state.attention, picture: () => imageOf(i) }));
  return [...same, ...others];
}

// While nobody moves anything, one network at a time: a move has to wait for no more than that.
async function lookAhead() {
  const mine = moves;
  for (const { key, attention, picture } of likely()) {
    for (const { name } of data.networks) {
      await new Promise(resolve => { setTimeout(resolve, PAUSE); });
      if (mine !== moves) return;
      work = work.then(async () => sight.see(sight.entry(key, attention), name, await picture()))
        .catch(failed);
      await work;
    }
  }
}

function sure(name) {  // numbers of those whom a network finds
  const { scores } = seen[name];
  return [...scores.keys()].filter(i => scores[i] >= state.score);
}

function query() {  // the box of whom we look for
  if (chosen) {  // with other attention the same person may have another number
    const { boxes } = seen[state.by];
    const same = sure(state.by).find(i => iou(boxes, i, chosen, 0) > 0.5);
    if (same !== undefined) state.person = same;
    return chosen;
  }
  const names = [state.by, ...data.networks.map(n => n.name)];
  const name = names.find(n => sure(n).length);
  if (!name) return null;
  const rows = sure(name), i = rows.includes(state.person) ? state.person : rows[0];
  return chosen = seen[name].boxes.slice(4 * i, 4 * i + 4);
}

function identity(box) {  // of the annotation; -1: nobody knows
  if (own || !box) return -1;
  const { boxes, ids } = data.scenes[state.scene], all = Float32Array.from(boxes.flat());
  const overlap = ids.map((_, k) => iou(box, 0, all, k)), best = Math.max(0, ...overlap);
  return best >= 0.5 ? ids[overlap.indexOf(best)] : -1;
}

// # Pictures
function heatOf(name) {
  const j = state.level, { maps } = seen[name], stride = networks[name].about.stride / 4 * 2 ** j;
  const what = state.quantity, minus = what === 'difference' && name !== 'teacher';
  if (what === 'picture') return null;
  const map = maps[j][what === 'mean_a' ? 'mean_a' : 'x'];
  const values = minus ? difference(map.data, seen.teacher.maps[j].x.data) : scaled(map.data);
  const [, h, w] = map.dims;
  return { values, shape: [h, w], stride, corner: [0, 0], opacity: state.opacity,
    difference: minus, box: null };
}

function draw(name, box) {
  const { boxes, scores } = seen[name], rows = sure(name);
  const labels = rows.map((i, k) =>
    `person ${k + 1} of ${rows.length}, score ${scores[i].toFixed(2)}: find them`);
  panels[name].show(image, {
    heat: heatOf(name), labels, boxes: rows.map(i => [...boxes.subarray(4 * i, 4 * i + 4)]),
    selected: box ? rows.findIndex(i => iou(boxes, i, box, 0) > 0.7) : -1,
    alt: `${name}: ${MEANING[state.quantity]} ${rows.length} people found`,
    edition: `${seen.number} ${state.score}`,
  }, words(name, rows.length));
}

function words(name, number) {
  const found = `${number} people found. `, j = state.level;
  if (name === 'teacher') return found;
  const map = (who, what) => seen[who].maps[j][what].data;
  const far = (who, what) => distance(map(who, what), map('teacher', what));
  const text = what => {
    const mine = far(name, what), plain = far('plain', what), alone = name === 'plain' || !plain;
    const share = alone ? '' : ` (${(mine / plain).toFixed(2)} of the one without)`;
    return mine.toExponential(1) + share;
  };
  return `${found}From the teacher, level ${j}: FD ${text('x')}, AD ${text('a')}.`;
}

// # Rankings
async function showHits(name, box) {
  const { people } = data, network = networks[name];
  if (!box) return panels[name].rank([]);
  const { features, gains } = seen[name];
  const { embeddings } = await network.regions(features, box, gains[3]);
  const mine = row => !own && people.scene[row] === state.scene, who = identity(box);
  const found = rank(embeddings, network.gallery, HITS, mine);
  panels[name].rank(found.map(({ row, similarity }, k) => {
    const said = similarity.toFixed(2), right = who < 0 ? null : people.id[row] === who;
    return { picture: cutOut(row), right, said, alt: `match ${k + 1}, similarity ${said}` };
  }));
}

function cutOut(row) {
  const { columns, width, height } = data.sheet;
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const x = row % columns * width, y = Math.floor(row / columns) * height;
  canvas.getContext('2d').drawImage(sheet, x, y, width, height, 0, 0, width, height);
  return canvas;
}

function save() {  // the pictures side by side, with their boxes
  const [, , h, w] = image.dims, names = data.networks.map(n => n.name);
  const out = document.createElement('canvas'), gap = 8;
  Object.assign(out, { width: names.length * (w + gap) - gap, height: h + 24 });
  const pen = out.getContext('2d');
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, out.width, out.height);
  names.forEach((name, k) => {
    const left = k * (w + gap);
    pen.fillStyle = '#222';
    pen.font = '15px system-ui, sans-serif';
    pen.fillText(panels[name].title, left, 17);
    panels[name].copy(pen, left, 24);
  });
  const a = Object.assign(document.createElement('a'), { download: 'person-search.png' });
  out.toBlob(blob => {
    a.href = URL.createObjectURL(blob);
    a.click();
    URL.revokeObjectURL(a.href);
  });
}

// # Start
try {
  await load();
  const asked = fromQuery(location.search, data.scenes.length);
  state = asked.state;
  buildScenes();
  buildPanels();
  await change({});
  connect();
  if (asked.ignored.length) say(`In the address, ${asked.ignored.join(', ')} means nothing here.`);
} catch (e) { say(e.message, true); }
