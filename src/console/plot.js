// A plot of the last minutes that moves, as SVG. It must not know what it shows.

const SVG = 'http://www.w3.org/2000/svg';
/** How many points it has. */
const POINTS = 90;
const [WIDTH, HEIGHT] = [300, 60];

function drawn(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

/** `<time-plot>`: `add(value)` adds a point at its right end; `label` says what it shows to who does not see it. */
class TimePlot extends HTMLElement {
  #values = [];
  #area = drawn('path', { class: 'area' });
  #stroke = drawn('path', { class: 'stroke' });
  #svg = drawn('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img' });
  #most = document.createElement('span');
  format = value => String(Math.round(value));

  connectedCallback() {
    if (this.firstChild) return;
    this.#svg.append(this.#area, this.#stroke);
    const ends = document.createElement('div');
    ends.className = 'ends';
    const since = document.createElement('span');
    since.textContent = this.getAttribute('span') ?? '';
    ends.append(since, this.#most);
    this.append(this.#svg, ends);
  }

  add(value) {
    this.#values.push(Number.isFinite(value) ? value : 0);
    if (this.#values.length > POINTS) this.#values.shift();
    const most = Math.max(...this.#values, 1e-9);
    const first = POINTS - this.#values.length;
    const places = this.#values.map((value, at) =>
      `${(((first + at) / (POINTS - 1)) * WIDTH).toFixed(1)},${(HEIGHT - 2 - (value / most) * (HEIGHT - 6)).toFixed(1)}`);
    const left = ((first / (POINTS - 1)) * WIDTH).toFixed(1);
    this.#stroke.setAttribute('d', `M${places.join('L')}`);
    this.#area.setAttribute('d', `M${left},${HEIGHT}L${places.join('L')}L${WIDTH},${HEIGHT}Z`);
    const now = this.format(this.#values.at(-1));
    this.#most.textContent = `most ${this.format(most > 1e-9 ? most : 0)}`;
    this.#svg.setAttribute('aria-label', `${this.getAttribute('label')}: ${now} now, ${this.#most.textContent}`);
  }
}
customElements.define('time-plot', TimePlot);
