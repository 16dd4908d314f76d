const PAGE = 4096;

// -- the data ------------------------------------------------------------------------------

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

// numbers in groups of 7 bits; they may have more than 32 bits
function unpacked(text) {
  const numbers = [];
  let value = 0, scale = 1;
  for (const byte of bytesOf(text)) {
    value += (byte & 127) * scale;
    scale *= 128;
    if (byte < 128) { numbers.push(value); value = 0; scale = 1; }
  }
  return numbers;
}

class Ranges {
  constructor(text, unit) {
    const numbers = unpacked(text), count = numbers.length / 2;
    this.starts = new Float64Array(count);
    this.ends = new Float64Array(count);
    this.before = new Float64Array(count + 1);
    let position = 0;
    for (let i = 0; i < count; i++) {
      this.starts[i] = position + numbers[2 * i] * unit;
      position = this.ends[i] = this.starts[i] + numbers[2 * i + 1] * unit;
      this.before[i + 1] = this.before[i] + numbers[2 * i + 1] * unit;
    }
  }
  below(address) {
    const i = lastUpTo(this.starts, address);
    return i < 0 ? 0 : this.before[i] + Math.min(address, this.ends[i]) - this.starts[i];
  }
  bytesIn(start, end) { return this.starts.length ? this.below(end) - this.below(start) : 0; }
}

// the place of the last number that is not above a value; -1: there is none
function lastUpTo(numbers, value) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= value) low = middle + 1; else high = middle;
  }
  return low - 1;
}

const kinds = data.kinds.map((kind) => ({...kind, ranges: new Ranges(kind.ranges, kind.unit)}));
const kindOf = Object.fromEntries(kinds.map((kind) => [kind.key, kind]));

// the same rule as MemoryMap.kinds_in: a mark wins; else what has most of the cell
function kindIn(start, end) {
  let shown = null, most = 0;
  for (const kind of kinds) {
    const covered = kind.ranges.bytesIn(start, Math.min(end, data.end));
    if (covered > (kind.isMark ? 0 : most)) { shown = kind; most = covered; }
  }
  return shown;
}

// every packet and every other finding, ascending by address
const items = [];
for (const set of data.sets) {
  const checksums = bytesOf(set.checksums), ghosts = set.ghosts === null ? null : bytesOf(set.ghosts);
  set.headerBytes = bytesOf(set.header);
  let address = 0, number = 0;
  const steps = unpacked(set.numbers);
  unpacked(set.addresses).forEach((gap, i) => {
    address += gap;
    number += steps[i] % 2 ? -(steps[i] + 1) / 2 : steps[i] / 2;
    items.push({
      set, number, start: address, size: number ? set.size : set.size0,
      checksum: checksums[2 * i] | checksums[2 * i + 1] << 8,
      isGhost: ghosts !== null && Boolean(ghosts[i >> 3] >> (i & 7) & 1),
    });
  });
}
for (const mark of data.marks) items.push({mark, start: mark.start, size: mark.size});
items.sort((a, b) => a.start - b.start);
const itemStarts = Float64Array.from(items, (item) => item.start);
const longest = items.reduce((size, item) => Math.max(size, item.size), 0);

// packets that lie behind each other with numbers that ascend are one finding
const findings = [];
items.forEach((item, place) => {
  const last = findings.at(-1), before = items[place - 1];
  if (last && item.set && before.set === item.set && before.isGhost === item.isGhost
      && before.start + before.size === item.start && before.number + 1 === item.number) {
    last.count++;
    last.end = item.start + item.size;
  } else {
    findings.push({item, start: item.start, end: item.start + item.size, count: 1});
  }
});

function itemsIn(start, end) {
  const found = [];
  for (let i = lastUpTo(itemStarts, end - 1); i >= 0 && items[i].start > start - longest; i--) {
    if (items[i].start + items[i].size > start) found.push(items[i]);
  }
  return found.reverse();
}

// -- words ---------------------------------------------------------------------------------

const hex = (number, digits = 0) => "0x" + number.toString(16).padStart(digits, "0");

// As human_size in units.py: rounded to a tenth, and without a point it is the size itself.
function human(size) {
  const tenths = (power) => Math.round(10 * size / 1024 ** power);
  const looksWhole = (power) => size % 1024 ** power !== 0 && tenths(power) % 10 === 0;
  let power = 0;
  while (power < 4 && tenths(power) >= 10240) power++;
  if (power && tenths(power - 1) < 100000 && looksWhole(power) && !looksWhole(power - 1)) power--;
  const text = size % 1024 ** power ? (tenths(power) / 10).toFixed(1) : `${size / 1024 ** power}`;
  return `${text} ${[size === 1 ? "byte" : "bytes", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

function itemText(item) {
  if (item.mark) return item.mark.title;
  return `${item.isGhost ? "a copy of " : ""}packet ${item.number} of set ${item.set.id}`;
}

function findingText(finding) {
  if (finding.count === 1) return itemText(finding.item);
  const {item} = finding, last = item.number + finding.count - 1;
  return `${item.isGhost ? "a copy of " : ""}packets ${item.number} to ${last} of set ${item.set.id}`;
}

// -- the view ------------------------------------------------------------------------------

const map = $("map"), overview = $("overview");
const view = {start: 0, cell: PAGE, columns: 64, rows: 24, at: 0, selected: 0, finding: -1};
let cellPx = 16, left = 0, lastWidth = 0;

const rowBytes = () => view.cell * view.columns;
const viewBytes = () => rowBytes() * view.rows;

function largestCell() {
  let cell = PAGE;
  while (cell * view.columns * view.rows < data.end) cell *= 2;
  return cell;
}

// puts the view where the selected cell is in it
function settle() {
  view.cell = Math.min(Math.max(view.cell, PAGE), largestCell());
  view.at = Math.min(Math.max(view.at, 0), data.end - 1);
  view.selected = view.at - view.at % view.cell;
  const row = rowBytes(), last = Math.ceil(data.end / row) - view.rows;
  let first = Math.round(view.start / row);
  const at = Math.floor(view.selected / row);
  if (at < first) first = at;
  if (at >= first + view.rows) first = at - view.rows + 1;
  view.start = Math.max(0, Math.min(first, last)) * row;
  draw();
}

function select(address) { view.at = address; settle(); describe(); }

// where to zoom to in a cell: the first finding, or else the middle
function target(start) {
  const [first] = itemsIn(start, start + view.cell);
  return first ? Math.max(first.start, start) : start + view.cell / 2;
}

// zooms so that the row of an address stays where it is
function zoom(factor, address = view.at) {
  const line = Math.floor((address - view.start) / rowBytes());
  view.cell = Math.min(Math.max(view.cell * factor, PAGE), largestCell());
  view.at = Math.min(address, data.end - 1);
  view.start = (Math.floor(view.at / rowBytes()) - line) * rowBytes();
  settle();
  describe();
}

function showAll() { view.cell = largestCell(); view.start = 0; settle(); describe(); }

function scroll(views) {
  view.start += views * viewBytes();
  view.at += views * viewBytes();
  settle();
  describe();
}

function showFinding(place) {
  if (!findings.length) return;
  view.finding = Math.min(Math.max(place, 0), findings.length - 1);
  select(findings[view.finding].start);
  markFinding();
}

// -- drawing -------------------------------------------------------------------------------

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const fill = (kind) => kind.key === "no_ram" ? colour("--paper") : kind.colour;

function sized(canvas, height) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function layOut() {
  const width = lastWidth = map.clientWidth, digits = Math.max(8, (data.end - 1).toString(16).length);
  left = 8 + 7 * (digits + 2);
  view.columns = 64;
  while (view.columns > 8 && (width - left) / view.columns < 13) view.columns /= 2;
  cellPx = Math.min(28, Math.floor((width - left) / view.columns));
  view.rows = window.innerHeight < 700 ? 16 : 24;
}

function draw() {
  drawMap();
  drawOverview();
  Object.assign(map.dataset, {start: view.start, cell: view.cell, selected: view.selected,
    columns: view.columns, rows: view.rows, left, cellPx});
  $("about").textContent = `${human(data.end - kindOf.no_ram.size)} of RAM. `
    + `A cell is ${human(view.cell)}, a row ${human(rowBytes())}, the view ${human(viewBytes())}.`;
}

function drawMap() {
  const pen = sized(map, view.rows * cellPx + 4), ink = colour("--faint");
  pen.textBaseline = "middle";
  for (let row = 0; row < view.rows; row++) {
    const start = view.start + row * rowBytes(), y = row * cellPx;
    if (start >= data.end) break;
    pen.font = "12px ui-monospace, Menlo, Consolas, monospace";
    pen.textAlign = "left";
    pen.fillStyle = ink;
    pen.fillText(hex(start, 8), 0, y + cellPx / 2);
    pen.font = `${Math.min(11, cellPx - 4)}px ui-monospace, Menlo, Consolas, monospace`;
    pen.textAlign = "center";
    for (let column = 0; column < view.columns; column++) {
      const kind = kindIn(start + column * view.cell, start + (column + 1) * view.cell);
      if (!kind) continue;
      const x = left + column * cellPx;
      pen.fillStyle = fill(kind);
      pen.fillRect(x, y, cellPx - 1, cellPx - 1);
      pen.fillStyle = kind.key === "no_ram" ? ink : kind.ink;
      pen.fillText(kind.letter, x + cellPx / 2, y + cellPx / 2);
    }
  }
  const place = (view.selected - view.start) / view.cell;
  const x = left + place % view.columns * cellPx, y = Math.floor(place / view.columns) * cellPx;
  pen.lineWidth = 2;
  pen.strokeStyle = colour("--focus");
  pen.strokeRect(x, y, cellPx - 1, cellPx - 1);
}

function drawOverview() {
  const pen = sized(overview, 22), width = overview.clientWidth;
  for (let x = 0; x < width; x++) {
    const kind = kindIn(x * data.end / width, (x + 1) * data.end / width);
    if (kind) { pen.fillStyle = fill(kind); pen.fillRect(x, 3, 1, 16); }
  }
  const x = view.start / data.end * width, w = Math.max(4, viewBytes() / data.end * width);
  pen.strokeStyle = colour("--focus");
  pen.lineWidth = 2;
  pen.strokeRect(Math.min(x, width - 5) + 1, 1, Math.min(w, width - x) - 2, 20);
}

// -- what is selected ----------------------------------------------------------------------

function describe() {
  const start = view.selected, end = Math.min(start + view.cell, data.end);
  const shares = kinds.map((kind) => [kind.ranges.bytesIn(start, end), kind]).filter(([size]) => size);
  const zone = data.zones.find((each) => start < each.end && end > each.start);
  $("where").textContent = `${hex(start)} to ${hex(end - 1)}${zone ? `, zone ${zone.name}` : ""}: `
    + (shares.map(([size, kind]) => `${kind.title} (${human(size)})`).join("; ") || "nothing");
  const inside = itemsIn(start, end);
  if (inside.length === 1) return open(inside[0]);
  const details = $("details");
  if (!inside.length) {
    details.replaceChildren(element("h2", hex(start)), element("p", "Nothing was found here."));
    return;
  }
  const list = element("ul");
  for (const item of inside.slice(0, 200)) {
    list.append(element("li", "", button(`${hex(item.start)} ${itemText(item)}`, () => openAt(item))));
  }
  if (inside.length > 200) list.append(element("li", `... and ${inside.length - 200} more: zoom in`));
  details.replaceChildren(element("h2", `${inside.length} findings from ${hex(start)}`), list);
}

// shows a finding at a zoom at which it has its own cell
function openAt(item) {
  while (view.cell > PAGE && itemsIn(item.start - item.start % view.cell,
      item.start - item.start % view.cell + view.cell).length > 1) view.cell /= 2;
  view.at = item.start;
  view.start = item.start - viewBytes() / 2;
  settle();
  describe();
  open(item);
}

function open(item) {
  const details = $("details"), parts = [element("h2", itemText(item))];
  const facts = [["address", hex(item.start)], ["size", human(item.size)]];
  if (item.mark) {
    facts.push(["kind", kindOf[item.mark.kind].title], ...item.mark.facts);
    parts.push(table([], facts));
  } else {
    if (item.set.ghosts !== null) {
      facts.push(["its page", item.isGhost ? "nobody holds it: a leftover copy" : "is held"]);
    }
    facts.push(["image", item.set.title || "not known"]);
    parts.push(table([], facts), table(["at", "bytes", "field", "value"], packetRows(item)));
    for (const text of item.set.conflicts) {
      const line = element("p", `conflict: ${text}`);
      line.className = "bad";
      parts.push(line);
    }
  }
  details.replaceChildren(...parts);
}

function table(head, rows) {
  const made = element("table"), box = element("div", "", made);
  box.className = "scroll";
  if (head.length) made.append(element("tr", "", ...head.map((text) => element("th", text))));
  for (const [first, ...rest] of rows) {
    made.append(element("tr", "", element("th", String(first)), ...rest.map((text) => element("td", String(text)))));
  }
  return box;
}

// the packet's header as it is in memory: the set's, with this packet's number, size and checksum
function packetRows(item) {
  const header = item.set.headerBytes.slice();
  const put = (name, value) => {
    const [, offset] = data.fields.find(([field]) => field === name);
    header[offset] = value & 255;
    header[offset + 1] = value >> 8;
  };
  put("pktNum", item.number);
  put("pktSize", item.size / 1024);
  put("pktChksum", item.checksum);
  const rows = data.fields.map(([name, offset, size, unit]) => {
    const bytes = header.slice(offset, offset + size);
    return [hex(offset, 2), spaced(bytes), name, meaning(name, little(bytes), unit, item)];
  });
  if (item.number === 0) {
    const [, crc] = data.item, start = 16 * (header[8] | header[9] << 8), {password} = item.set;
    const text = password === null ? "no password" : `CRC-32 of the BIOS admin password: ${password}`;
    rows.push([hex(start + crc[1], 2), "", crc[0], text]);
  }
  return rows;
}

const spaced = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
const little = (bytes) => Array.from(bytes).reduceRight((sum, byte) => sum * 256 + byte, 0);

function meaning(name, value, unit, item) {
  const words = {
    pktId: "the magic $RPK",
    pktSize: `${value * 1024} bytes`,
    hdrSize: `${value * 16} bytes`,
    pktSetId: item.set.id,
    pktNum: value ? "image data" : "a list of items, no image data",
    totPkts: "packets of the set",
    pktChksum: "the words of the packet sum to 0",
  };
  const shownValue = value > 0xffff || name === "pktChksum" ? hex(value) : String(value);
  return words[name] ? `${shownValue}: ${words[name]}` : shownValue;
}

// -- lists ---------------------------------------------------------------------------------

function fillLegend(id, belongs) {
  const there = kinds.filter((kind) => kind.size && belongs(kind));
  for (const kind of there) {
    const swatch = element("span", kind.letter);
    swatch.className = "swatch";
    swatch.style.background = kind.key === "no_ram" ? "transparent" : kind.colour;
    swatch.style.color = kind.key === "no_ram" ? "" : kind.ink;
    $(id).append(element("li", "", swatch, `${kind.title}: ${human(kind.size)}`));
  }
  return there.length;
}

function fillLists() {
  document.title = `Memory map of ${data.name}`;
  $("name").textContent = `The memory of ${data.name}`;
  fillLegend("legend", (kind) => !kind.isMark);
  $("legend-found-title").hidden = !fillLegend("legend-found", (kind) => kind.isMark);
  for (const set of data.sets) {
    const there = new Set(items.filter((item) => item.set === set).map((item) => item.number));
    const missing = [];
    for (let i = 0; i < set.total && missing.length < 20; i++) if (!there.has(i)) missing.push(i);
    const text = `set ${set.id}: ${there.size} of ${set.total} packets${set.title ? `, ${set.title}` : ""}`
      + (missing.length ? `; missing: ${missing.join(", ")}${set.total - there.size > 20 ? ", ..." : ""}` : "");
    $("notes").append(element("li", text));
  }
  const more = data.rejectCount - data.marks.filter((mark) => mark.kind === "reject").length;
  $("findings-title").textContent = findings.length ? `Findings: ${findings.length}` : "Nothing was found";
  findings.slice(0, 1000).forEach((finding, place) => {
    const act = () => { showFinding(place); openAt(finding.item); };
    $("findings").append(element("li", "", button(`${hex(finding.start)} ${findingText(finding)}`, act)));
  });
  if (findings.length > 1000) $("findings").append(element("li", `... and ${findings.length - 1000} more`));
  if (more > 0) $("notes").append(element("li", `${more} more pages only look like a packet or an image`));
  for (const note of data.notes) $("notes").append(element("li", `note: ${note}`));
}

function markFinding() {
  for (const each of $("findings").querySelectorAll("[aria-current]")) each.removeAttribute("aria-current");
  const current = $("findings").children[view.finding];
  if (current && view.finding < 1000) {
    current.firstChild.setAttribute("aria-current", "true");
    $("findings").scrollTop = current.offsetTop - $("findings").offsetTop - 40;
  }
}

// -- keys, wheel, clicks -------------------------------------------------------------------

const keys = {
  ArrowLeft: () => select(view.selected - view.cell),
  ArrowRight: () => select(view.selected + view.cell),
  ArrowUp: () => select(view.selected - rowBytes()),
  ArrowDown: () => select(view.selected + rowBytes()),
  PageUp: () => scroll(-1),
  PageDown: () => scroll(1),
  Home: () => select(0),
  End: () => select(data.end - 1),
  "+": () => zoom(1 / 2),
  "=": () => zoom(1 / 2),
  "-": () => zoom(2),
  0: showAll,
  // the finding that Tab went to, or else the first one in the cell
  Enter: () => {
    const inside = itemsIn(view.selected, view.selected + view.cell), chosen = findings[view.finding];
    if (chosen && chosen.start === view.at) openAt(chosen.item);
    else if (inside.length) openAt(inside[0]);
    else zoom(1 / 2);
  },
};

map.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Tab") {
    const next = view.finding + (event.shiftKey ? -1 : 1);
    if (next < 0 || next >= findings.length) { view.finding = event.shiftKey ? -1 : findings.length; return; }
    showFinding(next);
  } else if (keys[event.key]) {
    keys[event.key]();
  } else {
    return;
  }
  event.preventDefault();
});

function addressAt(event) {
  const box = map.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left - left) / cellPx);
  const row = Math.floor((event.clientY - box.top) / cellPx);
  if (column < 0 || column >= view.columns || row < 0 || row >= view.rows) return null;
  const address = view.start + (row * view.columns + column) * view.cell;
  return address < data.end ? address : null;
}

map.addEventListener("click", (event) => {
  const address = addressAt(event);
  if (address !== null) select(address);
});
map.addEventListener("dblclick", (event) => {
  const address = addressAt(event);
  if (address !== null) zoom(1 / 8, target(address));
});
map.addEventListener("wheel", (event) => {
  const address = addressAt(event);
  if (address === null) return;
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1 / 2 : 2, target(address));
}, {passive: false});
overview.addEventListener("click", (event) => {
  const box = overview.getBoundingClientRect();
  const address = Math.floor((event.clientX - box.left) / box.width * data.end);
  view.start = address - viewBytes() / 2;
  select(address);
});

$("in").addEventListener("click", () => zoom(1 / 2));
$("out").addEventListener("click", () => zoom(2));
$("all").addEventListener("click", showAll);
$("up").addEventListener("click", () => scroll(-1));
$("down").addEventListener("click", () => scroll(1));
$("previous").addEventListener("click", () => showFinding(view.finding - 1));
$("next").addEventListener("click", () => showFinding(view.finding + 1));
$("go").addEventListener("submit", (event) => {
  event.preventDefault();
  const address = parseInt($("address").value.replace(/^0x/i, ""), 16);
  if (address >= 0 && address < data.end) {
    view.start = address - viewBytes() / 2;
    select(address);
  }
});
new ResizeObserver(() => {
  if (map.clientWidth === lastWidth) return;
  layOut();
  settle();
}).observe($("pictures"));
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

fillLists();
layOut();
showAll();
