// The page: what is chosen, the controls that choose it, and what each choice changes.
const byId = id => document.getElementById(id);
const root = document.querySelector('.hfn');
const layers = DATA.layers.map((source, number) => new Layer(source, number));
const now = {l: DATA.layer, h: DATA.head, i: DATA.token, view: DATA.view};
const options = [];

// Characters that one could not see, or that would turn the text around them.
const shown = token => token.replace(/[\u202a-\u202e\u2066-\u2069]/g, '').replace(/\n/g, '⏎').replace(/\t/g, '⇥')
  .replace(/^ +$/, '␣') || '∅';
const threshold = () => byId('threshold').value / 200;
const two = number => number.toFixed(2).replace('-', '−');

function make(parent, name, attributes = {}, text = '') {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return parent.appendChild(element);
}

function writeToken(parent, sequence, index) {
  const name = make(parent, 'bdi', {title: `${sequence.pieces[index]} (${index})`});
  if (sequence.pinyin && sequence.pinyin[index]) {
    const ruby = make(name, 'ruby', {}, shown(sequence.tokens[index]));
    make(ruby, 'rt', {}, sequence.pinyin[index]);
  } else name.textContent = shown(sequence.tokens[index]);
  if (sequence.segments[index] === 1) parent.classList.add('b');
}

// The two lists of tokens, made anew when a layer has others (encoder and decoder).
function writeLists() {
  const {layer} = now;
  byId('rows').replaceChildren();
  byId('columns').replaceChildren();
  options.length = 0;
  layer.rows.tokens.forEach((_, i) => {
    const option = make(byId('rows'), 'div', {role: 'option', id: 'from' + i});
    writeToken(option, layer.rows, i);
    option.onclick = () => choose({i});
    options.push(option);
  });
  layer.columns.tokens.forEach((_, j) => {
    const item = make(byId('columns'), 'li');
    writeToken(item, layer.columns, j);
    make(item, 'i');
  });
  const reading = [layer.rows, layer.columns].some(sequence => sequence.pinyin);
  const many = layer.n > 48;
  now.step = (reading ? 36 : 24) - (many ? 6 : 0);
  root.style.setProperty('--row', now.step + 'px');
  root.style.setProperty('--line', (many ? 18 : 22) + 'px');
  root.style.setProperty('--letter', (many ? 14 : 16) + 'px');
}

const matches = (sequence, index) => {
  const wanted = byId('find').value.trim().toLowerCase();
  return wanted !== '' && [sequence.tokens, sequence.pieces, sequence.pinyin || []].some(names =>
    (names[index] || '').toLowerCase().includes(wanted));
};

// Which tokens of a sequence pass the filters.
function passing(sequence, segment, narrow) {
  return sequence.tokens.map((_, index) => index).filter(index =>
    (segment === undefined || sequence.segments[index] === +segment)
    && (byId('special').checked || sequence.segments[index] !== null) && (!narrow || matches(sequence, index)));
}

function choose(change) {
  const before = now.layer;
  Object.assign(now, change);
  now.l = Math.max(0, Math.min(layers.length - 1, now.l));
  const layer = now.layer = layers[now.l];
  now.h = Math.max(0, Math.min(layer.heads - 1, now.h));
  if (!before || before.rows !== layer.rows || before.columns !== layer.columns) writeLists();
  const [from, to] = byId('filter').value;
  const narrow = byId('only').checked && byId('find').value.trim() !== '';
  now.rows = passing(layer.rows, from, narrow);
  now.columns = passing(layer.columns, to, false);
  if (!now.rows.includes(now.i)) now.i = now.rows.length ? now.rows[0] : null;
  const any = now.i !== null && now.columns.length > 0;
  now.best = any ? layer.best(now.h, now.i, now.columns) : null;
  now.a = any ? layer.weight(now.h, now.i, now.best) : null;
  now.qk = any ? layer.product(now.h, now.i, now.best) : null;
  show();
}

function show() {
  const {layer, l, h, i, best, a, qk} = now;
  root.dataset.view = now.view;
  root.dataset.state = JSON.stringify({l, h, i, a, best, qk});
  const place = (DATA.sequences.length > 1 ? layer.kind + ' ' : '') + `layer ${l} head ${h}`;
  byId('status').textContent = best === null ? `${place}: no tokens pass the filters`
    : `${place}: ${shown(layer.rows.tokens[i])} → ${shown(layer.columns.tokens[best])} ${two(a)}`;
  byId('layer').value = l;
  byId('head').replaceChildren(...Array.from({length: layer.heads}, (_, head) => new Option(head, head, false, head === h)));
  document.querySelector(`[value=${now.view}]`).checked = true;
  byId('least').textContent = threshold().toFixed(3);
  for (const cell of document.querySelectorAll('[role=gridcell]')) {
    const chosen = cell.id === `cell${l}-${h}`;
    if (chosen !== (cell.getAttribute('aria-selected') === 'true')) cell.setAttribute('aria-selected', chosen);
    if (chosen) byId('grid').setAttribute('aria-activedescendant', cell.id);
  }
  const rows = new Set(now.rows), columns = new Set(now.columns);
  options.forEach((option, index) => {
    option.hidden = !rows.has(index);
    option.setAttribute('aria-selected', index === i);
    option.classList.toggle('found', matches(layer.rows, index));
  });
  if (i !== null) byId('rows').setAttribute('aria-activedescendant', 'from' + i);
  [...byId('columns').children].forEach((item, j) => {
    const weight = i === null ? 0 : layer.weight(h, i, j);
    item.hidden = !columns.has(j);
    item.classList.toggle('best', j === best);
    item.classList.toggle('found', matches(layer.columns, j));
    item.style.backgroundImage = `linear-gradient(90deg, var(--tint) ${100 * weight}%, transparent 0)`;
    item.lastChild.textContent = weight < 0.005 ? '' : two(weight);
  });
  byId('statistics').replaceChildren();
  const facts = DATA.statistics.map(({name, values}) => [name, values[l][h]]);
  if (qk !== null) facts.unshift([`scaled q·k, ${shown(layer.rows.tokens[i])} → ${shown(layer.columns.tokens[best])}`, qk]);
  for (const [name, value] of facts) {
    make(byId('statistics'), 'dt', {}, name);
    make(byId('statistics'), 'dd', {}, value === null ? '–' : value.toPrecision(3).replace('-', '−'));
  }
  draw();
}

// What the main picture shows, drawn by `begin(width, height)`; `names` adds the tokens that stand beside it on screen.
function paint(begin, names) {
  const {layer, step} = now, room = Math.max(120, byId('picture').parentNode.clientWidth || 600);
  if (now.view === 'matrix') {
    const margin = 76, side = Math.max(150, Math.min(room - margin - 12, innerHeight * 0.75 - margin));
    const painter = begin(Math.ceil(margin + side + 12), Math.ceil(margin + side + 12));
    Object.assign(now, drawMatrix(painter, margin, margin, side), {top: margin});
    return `Largest weight: ${two(now.largest)}. Click on a row to choose its token.`;
  }
  const head = now.view === 'neuron' && layer.vectors ? step + 24 : 0, beside = names ? 110 : 0;
  root.style.setProperty('--top', head + 'px');
  const painter = begin(room + 2 * beside, Math.max(1, head + step * Math.max(now.rows.length, now.columns.length)));
  if (now.i === null) return '';
  if (head) drawNeurons(painter, beside + 8, head, room - 16, step);
  else drawLinks(painter, beside, 0, room, step);
  if (names) {
    const write = (sequence, list, x, align, chosen, top) => list.forEach((index, place) =>
      label(painter, sequence, index, x, top + (place + 0.5) * step, align, index === chosen));
    write(layer.rows, head ? [now.i] : now.rows, beside - 8, 'right', now.i, head && head - step * 1.5 + 4);
    write(layer.columns, now.columns, beside + room + 8, 'left', now.best, head);
  }
  if (now.view !== 'neuron' || head) return '';
  const having = layers.filter(each => each.vectors).map(each => each.number);
  return having.length ? `Queries and keys are in this page for layer ${having.join(', ')}.`
    : 'This page has no queries and keys: neuron_view(maps, layer=…) makes one that has.';
}

function draw() {
  const most = Math.max(...layers.map(layer => layer.heads));
  const cell = now.view === 'model' ? Math.max(20, Math.min(72, Math.floor((root.clientWidth - 64) / most) - 2))
    : Math.max(16, Math.min(22, Math.floor(280 / most)));
  const key = [cell, byId('cells').value, devicePixelRatio, ink('paper')].join();
  if (now.drawn !== key) {
    root.style.setProperty('--cell', cell + 'px');
    drawHeads(byId('overview'), cell, DATA.statistics[byId('cells').value]);
    now.drawn = key;
  }
  const canvas = byId('picture');
  byId('note').textContent = paint((width, height) => new CanvasPainter(canvas, width, height, devicePixelRatio), false);
  canvas.setAttribute('aria-label', `${now.view} view, ${byId('status').textContent}`);
}

function save(kind) {
  const done = blob => {
    const link = make(document.body, 'a', {href: URL.createObjectURL(blob), download: `attention-layer-${now.l}-head-${now.h}.${kind}`});
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 1e4);
  };
  const canvas = document.createElement('canvas');
  let painter;
  const begin = (width, height) => {
    painter = kind === 'svg' ? new SvgPainter(width, height) : new CanvasPainter(canvas, width, height, 2);
    painter.rect(0, 0, width, height, ink('paper'));
    return painter;
  };
  if (now.view === 'model') {
    const heads = byId('overview'), width = heads.clientWidth, height = heads.clientHeight;
    begin(width + 30, height + 20).image(heads, 30, 0, width, height);
    const step = height / layers.length;
    layers.forEach((_, l) => painter.text(l, 24, (l + 0.5) * step, 11, 'right', ink('quiet')));
    for (let h = 0; h < Math.round(width / step); h++) painter.text(h, 30 + (h + 0.5) * step, height + 10, 11, 'center', ink('quiet'));
  } else paint(begin, true);
  if (kind === 'svg') done(new Blob([painter.source], {type: 'image/svg+xml'}));
  else canvas.toBlob(done);
}

// Arrow keys: `moves` gives what each changes.
function keys(element, moves) {
  element.addEventListener('keydown', event => {
    const move = !event.ctrlKey && !event.metaKey && !event.altKey && moves[event.key];
    if (!move) return;
    event.preventDefault();
    choose(move());
  });
}

function listen() {
  const moved = (by, places = now.rows) => ({i: places[Math.max(0, Math.min(places.length - 1, places.indexOf(now.i) + by))]});
  const visible = change => {
    const option = options[change.i];
    if (option) setTimeout(() => option.scrollIntoView({block: 'nearest'}));
    return change;
  };
  keys(byId('grid'), {
    ArrowUp: () => ({l: now.l - 1}), ArrowDown: () => ({l: now.l + 1}), ArrowLeft: () => ({h: now.h - 1}),
    ArrowRight: () => ({h: now.h + 1}), Home: () => ({h: 0}), End: () => ({h: now.layer.heads - 1}),
  });
  keys(byId('rows'), {
    ArrowUp: () => visible(moved(-1)), ArrowDown: () => visible(moved(1)), Home: () => visible(moved(-1e9)), End: () => visible(moved(1e9)),
  });
  keys(byId('find'), {Enter: () => {
    const found = now.rows.filter(i => matches(now.layer.rows, i));
    return found.length ? visible({i: found.find(i => i > now.i) ?? found[0]}) : {};
  }});
  byId('layer').onchange = event => choose({l: +event.target.value});
  byId('head').onchange = event => choose({h: +event.target.value});
  for (const radio of document.getElementsByName('view')) radio.onchange = () => choose({view: radio.value});
  for (const id of ['filter', 'threshold', 'find', 'only', 'special', 'cells']) byId(id).oninput = () => choose({});
  for (const kind of ['svg', 'png']) byId(kind).onclick = () => save(kind);
  document.querySelector('form').onsubmit = event => event.preventDefault();
  byId('picture').onclick = event => {
    const row = Math.floor((event.offsetY - now.top) / now.down);
    if (now.view === 'matrix' && row in now.rows) choose({i: now.rows[row]});
  };
  let width = innerWidth;
  addEventListener('resize', () => { if (width !== innerWidth) { width = innerWidth; draw(); } });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
}

function writeControls() {
  layers.forEach((layer, l) => {
    byId('layer').append(new Option(DATA.sequences.length === 1 ? l : `${l} (${layer.kind})`, l));
    const row = make(byId('grid'), 'div', {role: 'row'});
    make(row, 'span', {class: 'number', role: 'rowheader'}, l);
    for (let h = 0; h < layer.heads; h++) {
      const cell = make(row, 'div', {role: 'gridcell', id: `cell${l}-${h}`, 'aria-label': `layer ${l} head ${h}`, 'aria-selected': false});
      if (l === layers.length - 1) make(cell, 'span', {class: 'number', 'aria-hidden': true}, h);
      cell.onclick = () => choose({l, h});
    }
  });
  DATA.statistics.forEach(({name}, place) => byId('cells').append(new Option(name, place)));
  byId('pair').hidden = !DATA.sequences.some(sequence => sequence.segments.includes(1));
}

async function start() {
  for (const layer of layers) await layer.load();
  writeControls();
  listen();
  choose({});
  root.removeAttribute('aria-busy');
  root.dataset.ms = Math.round(performance.now());
  root.dataset.ready = '';
}
