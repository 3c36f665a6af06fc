// Bytes by tokens: the state, which stays level, and a cache that grows with the text.
export function size(bytes) {
  if (!bytes) return "0";
  const [unit, one] = bytes < 1e6 ? ["kB", 1e3] : bytes < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  const value = bytes / one;
  return `${value.toFixed(value < 10 && value % 1 ? 1 : 0)} ${unit}`;
}
const short = (tokens) => (tokens < 1e4 ? tokens : tokens < 1e6 ? `${Math.round(tokens / 1e3)}k` : `${tokens / 1e6}M`);

// The largest of 1, 2, 5 times a power of ten that divides a length into four or more.
function step(length) {
  const power = 10 ** Math.floor(Math.log10(length / 4));
  return [5, 2, 1].map((factor) => factor * power).find((each) => each <= length / 4) || power;
}

// points: [{tokens, mine, theirs}], ascending; the first stands at 0 tokens.
export function draw(canvas, points) {
  const style = getComputedStyle(canvas), color = (name) => style.getPropertyValue(name);
  const scale = devicePixelRatio || 1, wide = canvas.clientWidth, high = canvas.clientHeight;
  canvas.width = wide * scale;
  canvas.height = high * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = style.font;
  const left = 62, right = 14, top = 22, bottom = 24;
  const far = Math.max(1000, ...points.map((point) => point.tokens));
  const most = Math.max(1, ...points.map((point) => Math.max(point.mine, point.theirs))) * 1.1;
  const x = (tokens) => left + (tokens / far) * (wide - left - right);
  const y = (bytes) => high - bottom - (bytes / most) * (high - top - bottom);
  pen.strokeStyle = color("--line");
  pen.fillStyle = color("--pale");
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (let bytes = 0; bytes <= most; bytes += step(most)) {
    pen.fillText(size(bytes), left - 8, y(bytes));
    line(pen, [[left, y(bytes)], [wide - right, y(bytes)]]);
  }
  pen.textBaseline = "alphabetic";
  pen.textAlign = "center";
  for (let tokens = step(far); tokens <= far * 0.97; tokens += step(far)) pen.fillText(short(tokens), x(tokens), high - 6);
  pen.textAlign = "left";
  pen.fillText("tokens", left, high - 6);
  pen.lineWidth = 2.5;
  pen.lineJoin = "round";
  for (const [name, label] of [["theirs", "a growing cache"], ["mine", "the state"]]) {
    pen.strokeStyle = pen.fillStyle = color(`--${name}`);
    line(pen, points.map((point) => [x(point.tokens), y(point[name])]));
    const last = points[points.length - 1], at = [x(last.tokens), y(last[name])];
    pen.beginPath();
    pen.arc(...at, 4, 0, 7);
    pen.fill();
    const near = at[0] < left + 120, together = Math.abs(y(last.mine) - y(last.theirs)) < 20;
    pen.textAlign = near ? "left" : "right";
    pen.fillText(label, at[0] + (near ? 8 : -8), at[1] - (together && name === "theirs" ? 24 : 9));
  }
}
function line(pen, places) {
  pen.beginPath();
  for (const place of places) pen.lineTo(...place);
  pen.stroke();
}
