// What is drawn over the pictures: the ruler in MU, the machine's lines, the framing's box.

const colours = new Map(); // resolved for the theme that is shown
let probe = null;

/** Return a colour of the style sheet as a canvas understands it: `light-dark()` is resolved by a hidden element. */
export function colour(name) {
  if (!colours.has(name)) {
    probe ??= document.body.appendChild(Object.assign(document.createElement("span"), { hidden: true }));
    probe.style.color = `var(${name})`;
    colours.set(name, getComputedStyle(probe).color);
  }
  return colours.get(name);
}

/** The theme has changed. */
export function forgetColours() {
  colours.clear();
}

/** Return the step of 1, 2 or 5 times a power of ten that is at least `least`. */
export function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999);
}

/** A ruler in MU along the left edge: small ticks at least 9 pixels apart, numbers at least 45. */
export function drawRuler(context, picture) {
  const small = niceStep(9 / picture.scale);
  const large = niceStep(45 / picture.scale);
  const decimals = Math.max(0, -Math.floor(Math.log10(large) + 1e-9));
  const low = picture.fromY(picture.height);
  const high = picture.fromY(0);
  context.save();
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  context.lineWidth = 1;
  for (let i = Math.ceil(low / small); i * small <= high; i++) {
    const value = i * small;
    const isLarge = Math.abs(value / large - Math.round(value / large)) < 1e-6;
    const y = Math.round(picture.toY(value)) + 0.5;
    context.strokeStyle = colour(isLarge ? "--ruler-strong" : "--ruler");
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(isLarge ? 10 : 5, y);
    context.stroke();
    if (!isLarge || y < 8 || y > picture.height - 22) continue; // the unit stands at the bottom
    const text = value.toFixed(decimals);
    context.lineWidth = 3;
    context.lineJoin = "round";
    context.strokeStyle = colour("--stage");
    context.strokeText(text, 14, y);
    context.lineWidth = 1;
    context.fillStyle = colour("--ruler-text");
    context.fillText(text, 14, y);
  }
  context.textBaseline = "bottom";
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeStyle = colour("--stage");
  context.strokeText("MU", 4, picture.height - 4);
  context.fillStyle = colour("--ruler-text");
  context.fillText("MU", 4, picture.height - 4);
  context.restore();
}

/** The machine's chin, top and centre as thin dashed lines; `across` is null from the side. */
export function drawMachine(context, picture, bounds, across) {
  context.save();
  context.strokeStyle = colour("--machine");
  context.lineWidth = 1;
  context.setLineDash([2, 4]);
  context.beginPath();
  for (const value of [bounds.chin_y, bounds.top_y]) {
    const y = Math.round(picture.toY(value)) + 0.5;
    context.moveTo(0, y);
    context.lineTo(picture.width, y);
  }
  if (across !== null) {
    const x = Math.round(picture.toX(across)) + 0.5;
    context.moveTo(x, 0);
    context.lineTo(x, picture.height);
  }
  context.stroke();
  context.restore();
}

/** Lines across a picture where chin and top are. */
export function drawBounds(context, picture, bounds) {
  context.save();
  context.lineWidth = 1.5;
  for (const [value, name] of [[bounds.chin_y, "--chin"], [bounds.top_y, "--top"]]) {
    const y = Math.round(picture.toY(value)) + 0.5;
    context.strokeStyle = colour(name);
    context.beginPath();
    context.moveTo(0, y);
    context.lineTo(picture.width, y);
    context.stroke();
  }
  context.restore();
}

/** The dataset's frame: the middle square of 128 of 256 pixels, chin on row 192 and skull top on row 64. */
export function drawBox(context, picture) {
  const unit = picture.width / 256;
  context.save();
  context.lineWidth = 1;
  for (const [name, dash] of [["--box-under", []], ["--box", [4, 4]]]) { // seen on dark and on light hair
    context.strokeStyle = colour(name);
    context.setLineDash(dash);
    context.strokeRect(64 * unit + 0.5, 64 * unit + 0.5, 128 * unit - 1, 128 * unit - 1);
  }
  context.setLineDash([]);
  context.lineWidth = 2;
  for (const [row, name] of [[192, "--chin"], [64, "--top"]]) {
    context.strokeStyle = colour(name);
    context.beginPath();
    context.moveTo(0, row * unit);
    context.lineTo(10 * unit, row * unit);
    context.moveTo(246 * unit, row * unit);
    context.lineTo(256 * unit, row * unit);
    context.stroke();
  }
  context.restore();
}
