// The pictures. Each draws into the box (x, y, width, height) of a painter.

// A head's weights on `c` by `c` points, each the largest that falls on it.
function thumbnail(layer, h, c, colours) {
  const {n, m} = layer, {weights, largest} = layer.plane(h), image = new ImageData(c, c);
  const bounds = size => Array.from({length: c}, (_, at) => [at * size / c | 0, Math.max((at * size / c | 0) + 1, Math.ceil((at + 1) * size / c))]);
  const rows = bounds(n), columns = bounds(m);
  for (let y = 0, to = 0; y < c; y++)
    for (let x = 0; x < c; x++, to += 4) {
      let weight = 0;
      for (let i = rows[y][0]; i < rows[y][1]; i++)
        for (let j = columns[x][0]; j < columns[x][1]; j++) weight = Math.max(weight, weights[i * m + j]);
      const colour = colours[shade(weight, largest)];
      for (let k = 0; k < 3; k++) image.data[to + k] = colour[k];
      image.data[to + 3] = 255;
    }
  return image;
}

// All heads: layers downwards, heads to the right; cells of `cell` points with a gap of 2.
function drawHeads(canvas, cell, statistic) {
  const most = Math.max(...layers.map(layer => layer.heads)), step = cell + 2;
  const width = most * step, height = layers.length * step;
  const ratio = Math.min(devicePixelRatio, 8000 / width, 8000 / height), c = Math.max(1, Math.round(cell * ratio));
  const painter = new CanvasPainter(canvas, width, height, ratio), colours = ramp();
  const values = statistic && statistic.values.flat().filter(value => value !== null);
  const low = statistic && Math.min(...values), span = statistic && Math.max(...values) - low || 1;
  layers.forEach((layer, l) => {
    for (let h = 0; h < layer.heads; h++) {
      const x = h * step + 1, y = l * step + 1;
      if (statistic) {
        const value = statistic.values[l][h];
        if (value === null) continue;
        const t = Math.round((value - low) / span * 255);
        painter.rect(x, y, cell, cell, `rgb(${colours[t]})`);
        if (cell >= 26) painter.text(value.toPrecision(2), x + cell / 2, y + cell / 2, 10, 'center', t < 128 ? ink('ink') : ink('paper'));
      } else {
        painter.pen.putImageData(thumbnail(layer, h, c, colours), Math.round(x * ratio), Math.round(y * ratio));
      }
    }
  });
}

// A name beside or above the picture, with its reading.
function label(painter, sequence, index, x, y, align, chosen) {
  const colour = ink(chosen ? 'accent' : 'ink'), reading = sequence.pinyin && sequence.pinyin[index];
  painter.text(shown(sequence.tokens[index]), x, reading ? y + 5 : y, 14, align, colour);
  if (reading) painter.text(reading, x, y - 9, 9, align, colour);
}

// Lines from each token to those it looks at; those of the chosen token strong.
function drawLinks(painter, x, y, width, step) {
  const {layer, h, i, rows, columns} = now;
  const centre = place => y + (place + 0.5) * step, blue = ink('accent'), grey = ink('faint');
  const least = Math.max(threshold(), 1e-9), own = Math.max(...columns.map(j => layer.weight(h, i, j)), 1e-9);
  for (const strong of [false, true])
    rows.forEach((row, from) => {
      if ((row === i) !== strong) return;
      columns.forEach((column, to) => {
        const weight = layer.weight(h, row, column);
        if (weight < least) return;
        if (strong) painter.line(x, centre(from), x + width, centre(to), blue, 0.7 + 4 * weight, 0.15 + 0.85 * weight / own);
        else painter.line(x, centre(from), x + width, centre(to), grey, 1, 0.05 + 0.6 * weight);
      });
    });
}

// The weights of one head as a picture: queries downwards, keys to the right. Returns the height of a row and the largest weight.
function drawMatrix(painter, x, y, side) {
  const {layer, h, i, rows, columns} = now, colours = ramp(), picture = document.createElement('canvas');
  const width = rows.length < columns.length ? side : side * columns.length / rows.length;
  const height = rows.length < columns.length ? side * rows.length / columns.length : side;
  picture.width = columns.length;
  picture.height = rows.length;
  const image = new ImageData(columns.length, rows.length), {weights, largest} = layer.plane(h), least = threshold();
  rows.forEach((row, a) => columns.forEach((column, b) => {
    const weight = weights[row * layer.m + column], colour = colours[weight < least ? 0 : shade(weight, largest)];
    image.data.set([...colour, 255], (a * columns.length + b) * 4);
  }));
  picture.getContext('2d').putImageData(image, 0, 0);
  const down = height / rows.length, across = width / columns.length, size = Math.min(14, down, across);
  painter.image(picture, x, y, width, height);
  for (const [x1, y1, x2, y2] of [[x, y, x + width, y], [x, y + height, x + width, y + height], [x, y, x, y + height],
    [x + width, y, x + width, y + height]]) painter.line(x1, y1, x2, y2, ink('faint'), 1, 1);
  // As much of a name as the margin holds: 9 letters, or 4 Chinese characters.
  const letters = Math.max(size, 11), name = (sequence, index) => {
    let left = 9, text = shown(sequence.tokens[index]);
    const kept = [...text].filter(char => (left -= char > '\u2e80' ? 2 : 1) >= 0).join('');
    return kept === text ? text : kept + '…';
  };
  rows.forEach((row, a) => {
    if (size >= 8 || row === i)
      painter.text(name(layer.rows, row), x - 6, y + (a + 0.5) * down, letters, 'right', ink(row === i ? 'accent' : 'ink'));
  });
  columns.forEach((column, b) => {
    const text = name(layer.columns, column), turned = [...text].length > 1;
    if (size >= 8 || column === now.best)
      painter.text(text, x + (b + 0.5) * across, y - (turned ? 6 : 10), letters, turned ? 'left' : 'center', ink(column === now.best ? 'accent' : 'ink'), turned);
  });
  const chosen = rows.indexOf(i);
  for (const edge of [chosen, chosen + 1]) painter.line(x, y + edge * down, x + width, y + edge * down, ink('accent'), 1, 1);
  return {down, largest};
}

// Query and keys, element by element: bars upwards are positive, downwards negative.
function drawNeurons(painter, x, y, width, step) {
  const {layer, h, i, columns} = now, dim = layer.vectors.dim, gap = 10, number = 44;
  const strip = (width - 2 * gap - number) / 2, bar = strip / dim;
  const query = layer.query(h, i), keys = columns.map(j => layer.key(h, j));
  // Three times the root mean square: a few neurons are many times larger, and would make the others invisible.
  const peak = vectors => 3 * Math.sqrt(vectors.reduce((sum, vector) => sum + vector.reduce((square, v) => square + v * v, 0), 0)
    / (vectors.length * dim)) || 1;
  const products = keys.map(key => key.map((value, c) => value * query[c]));
  const bars = (vector, largest, left, middle) => vector.forEach((value, c) => {
    const size = Math.min(1, Math.abs(value) / largest) * (step / 2 - 1);
    painter.rect(left + c * bar, value > 0 ? middle - size : middle, Math.max(0.5, bar - (bar > 2 ? 0.5 : 0)), size, ink0[value > 0 ? 0 : 1]);
  });
  const ink0 = [ink('plus'), ink('minus')], of = [peak([query]), peak(keys), peak(products)], grey = ink('ink');
  const [left, right] = [x, x + strip + gap];
  painter.text('query', left, y - step - 14, 11, 'left', grey);
  painter.text('▲ positive  ▼ negative', right, y - step - 14, 11, 'left', grey);
  bars(query, of[0], left, y - step / 2 - 4);
  painter.text('keys below', left, y - 2, 9, 'left', ink('quiet'));
  painter.text('query × key', right, y - 2, 9, 'left', ink('quiet'));
  painter.text('q·k', x + width, y - 2, 9, 'right', ink('quiet'));
  keys.forEach((key, place) => {
    const middle = y + (place + 0.5) * step;
    painter.line(x, middle, x + width - number, middle, ink('faint'), 0.5, 0.6);
    bars(key, of[1], left, middle);
    bars(products[place], of[2], right, middle);
    painter.text(two(layer.product(h, i, columns[place])), x + width, middle, 11, 'right', columns[place] === now.best ? ink('accent') : grey);
  });
}
