// The bar of an explorer: its address, "Save picture", "Reset", and the way to an answer.

// # The address
function elsewhere() {  // in JupyterLab the address belongs to JupyterLab
  return !document.body.dataset.voila
    && Boolean(document.querySelector('.jp-LabShell, body[data-notebook]'));
}

function mine(model, key) {  // the name of a value of this explorer, or null
  const prefix = `${model.get('prefix')  }.`;
  if (key.startsWith(prefix)) return key.slice(prefix.length);
  return model.get('names').includes(key) ? key : null;
}

function read(model) {  // what the address says: text, which Python checks
  const said = {};
  if (elsewhere()) return said;
  for (const [key, value] of new URLSearchParams(location.search)) {
    const name = mine(model, key);
    if (name !== null) said[name] = value;
  }
  return said;
}

function write(model) {  // other words of the address stay
  if (elsewhere()) return;
  const query = new URLSearchParams(location.search);
  const alone = document.querySelectorAll('.psnb-page-bar').length < 2;
  for (const key of [...query.keys()]) if (mine(model, key) !== null) query.delete(key);
  for (const [name, value] of Object.entries(model.get('state'))) {
    query.set(alone ? name : `${model.get('prefix')}.${name}`, value);
  }
  const text = query.toString().replaceAll('%2C', ',');
  history.replaceState(history.state, '', location.pathname + (text && `?${text}`) + location.hash);
}

// # Save and scroll
function save(name, bytes) {
  const url = URL.createObjectURL(new Blob([bytes], { type: 'image/png' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);
}

function bring(root, kind, tries = 40) {  // an answer into view, once it is laid out
  const found = root && root.querySelector(`.${kind}`);
  if (found && found.offsetHeight > 60) {
    const still = matchMedia('(prefers-reduced-motion: reduce)').matches;
    const block = found.offsetHeight > innerHeight ? 'start' : 'nearest';
    found.scrollIntoView({ behavior: still ? 'auto' : 'smooth', block });
  } else if (tries) setTimeout(() => bring(root, kind, tries - 1), 50);
}

// # The bar
function render({ model, el }) {
  const bar = document.createElement('div');
  bar.className = 'psnb-page-bar';
  for (const [label, tip, what] of [
    ['Save picture', 'what the page shows now, as a PNG file', { save: true }],
    ['Reset', 'as the page was when it was opened', { reset: true }],
  ]) {
    const b = document.createElement('button');
    b.type = 'button';
    b.textContent = label;
    b.title = tip;
    b.addEventListener('click', () => model.send(what));
    bar.append(b);
  }
  el.append(bar);
  const told = (content, buffers) => {
    if (content.save) save(content.save, buffers[0]);
    if (content.address) write(model);
    if (content.scroll) bring(el.closest('.psnb-explorer'), content.scroll);
  };
  const changed = () => write(model);
  model.on('msg:custom', told);
  model.on('change:state', changed);
  model.send({ ready: true, state: read(model) });
  return () => { model.off('msg:custom', told); model.off('change:state', changed); };
}

export default { render };
