// Two ways to draw the same picture: on a canvas for the screen and PNG, as elements for SVG.
const FONT = 'system-ui, "Noto Sans CJK SC", "Noto Sans SC", "PingFang SC", "Microsoft YaHei", sans-serif';
const ink = name => getComputedStyle(root).getPropertyValue('--' + name).trim();
const rgb = name => [1, 3, 5].map(at => parseInt(ink(name).substr(at, 2), 16));

// 256 colours from nothing to the largest weight, steadily darker (on dark ground lighter).
function ramp() {
  const stops = ['paper', 'middle', 'strong'].map(rgb);
  return Array.from({length: 256}, (_, t) => {
    const [from, to] = t < 128 ? stops : stops.slice(1), part = t < 128 ? t / 128 : (t - 128) / 127;
    return from.map((channel, k) => Math.round(channel + (to[k] - channel) * part));
  });
}
const shade = (weight, largest) => Math.round(255 * Math.sqrt(Math.min(1, weight / largest)));

class CanvasPainter {
  constructor(canvas, width, height, scale) {
    // Browsers give up above 16384 points a side.
    scale = Math.min(scale, 16000 / height, 16000 / width);
    canvas.width = Math.ceil(width * scale);
    canvas.height = Math.ceil(height * scale);
    canvas.style.width = width + 'px';
    canvas.style.height = height + 'px';
    this.pen = canvas.getContext('2d');
    this.pen.scale(scale, scale);
  }
  rect(x, y, width, height, fill, alpha = 1) {
    this.pen.globalAlpha = alpha;
    this.pen.fillStyle = fill;
    this.pen.fillRect(x, y, width, height);
  }
  line(x1, y1, x2, y2, stroke, width, alpha) {
    this.pen.globalAlpha = alpha;
    this.pen.strokeStyle = stroke;
    this.pen.lineWidth = width;
    this.pen.beginPath();
    this.pen.moveTo(x1, y1);
    this.pen.lineTo(x2, y2);
    this.pen.stroke();
  }
  text(text, x, y, size, align, fill, turned) {
    const pen = this.pen;
    pen.save();
    pen.globalAlpha = 1;
    pen.fillStyle = fill;
    pen.font = size + 'px ' + FONT;
    pen.textAlign = align;
    pen.textBaseline = 'middle';
    pen.translate(x, y);
    if (turned) pen.rotate(-Math.PI / 2);
    pen.fillText(text, 0, 0);
    pen.restore();
  }
  image(picture, x, y, width, height) {
    this.pen.globalAlpha = 1;
    this.pen.imageSmoothingEnabled = false;
    this.pen.drawImage(picture, x, y, width, height);
  }
}

class SvgPainter {
  constructor(width, height) {
    this.head = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">`;
    this.parts = [];
  }
  add(name, attributes, text = '') {
    const safe = value => String(value).replace(/[&<>"]/g, sign => `&#${sign.charCodeAt(0)};`);
    const written = Object.entries(attributes).map(([key, value]) =>
      ` ${key}="${typeof value === 'number' ? +value.toFixed(3) : safe(value)}"`);
    // XML knows no control characters.
    this.parts.push(`<${name}${written.join('')}>${safe(text).replace(/[\0-\x08\x0b-\x1f]/g, '\ufffd')}</${name}>`);
  }
  rect(x, y, width, height, fill, opacity = 1) { this.add('rect', {x, y, width, height, fill, opacity}); }
  line(x1, y1, x2, y2, stroke, width, opacity) {
    this.add('line', {x1, y1, x2, y2, stroke, 'stroke-width': width, opacity});
  }
  text(text, x, y, size, align, fill, turned) {
    const anchor = {left: 'start', center: 'middle', right: 'end'}[align];
    this.add('text', {x, y, fill, 'font-size': size, 'font-family': FONT, 'text-anchor': anchor,
      'dominant-baseline': 'central', ...(turned && {transform: `rotate(-90 ${x} ${y})`})}, text);
  }
  image(picture, x, y, width, height) {
    this.add('image', {x, y, width, height, href: picture.toDataURL(), 'image-rendering': 'pixelated'});
  }
  get source() { return this.head + this.parts.join('') + '</svg>'; }
}
