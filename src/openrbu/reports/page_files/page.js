const MOST_ROWS = 1000;
const machines = data.machines;
const SIGNS = {good: "\u2713", open: "\u2026", bad: "\u2717"};
const collator = new Intl.Collator("en", {numeric: true});

// -- words ---------------------------------------------------------------------------------

const outcomeOf = (key) => data.outcomes[key];
const senseOf = (key) => outcomeOf(key).sense;
const outcomeText = (key) => `${SIGNS[senseOf(key)]} ${outcomeOf(key).words}`;
const codeText = (code) => code ? `${code}: ${data.codes[code]}` : "";
const timeText = (at) => at.replace("T", " ").replace("Z", " UTC");
const many = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;

function versionText(machine) {
  const goes = machine.target && machine.target !== machine.version && machine.outcome !== "updated";
  return goes ? `${machine.version} (${machine.target} wanted)` : machine.version;
}

const columns = [
  {key: "name", title: "machine", text: (machine) => machine.name},
  {key: "model", title: "model", text: (machine) => machine.model},
  {key: "version", title: "BIOS", text: versionText},
  {key: "outcome", title: "outcome", text: (machine) => outcomeText(machine.outcome)},
  {key: "code", title: "BIOS says", text: (machine) => codeText(machine.code)},
  {key: "why", title: "because", text: (machine) => machine.why},
  {key: "at", title: "when", text: (machine) => timeText(machine.at)},
];
const filters = ["model", "version", "code"];

// what the search looks at, once for each machine
for (const machine of machines) {
  const parts = columns.map((column) => column.text(machine));
  parts.push(machine.computer, machine.tag, machine.vendor, machine.system, machine.outcome);
  machine.all = parts.join("\n").toLowerCase();
}

const view = {sort: "name", isDown: false, outcome: "", all: false, open: new Set()};

// -- which machines, in which order --------------------------------------------------------

function isShown(machine) {
  const words = $("text").value.toLowerCase().split(/\s+/);
  return (!view.outcome || machine.outcome === view.outcome)
    && filters.every((key) => $(key).value === "" || machine[key] === JSON.parse($(key).value))
    && words.every((word) => machine.all.includes(word));
}

const SENSES = ["bad", "open", "good"];

function compare(a, b) {
  const key = view.sort;
  if (key === "outcome") {
    const apart = SENSES.indexOf(senseOf(a.outcome)) - SENSES.indexOf(senseOf(b.outcome));
    if (apart) return apart;
  }
  return collator.compare(a[key], b[key]);
}

function chosen() {
  const shown = machines.filter(isShown).sort(compare);
  return view.isDown ? shown.reverse() : shown;
}

// -- drawing -------------------------------------------------------------------------------

function draw() {
  const shown = chosen(), drawn = view.all ? shown : shown.slice(0, MOST_ROWS);
  $("rows").replaceChildren(...drawn.flatMap(rowsOf));
  const count = `${many(shown.length, "machine")} of ${machines.length.toLocaleString("en")}`;
  $("shown").textContent = drawn.length < shown.length
    ? `${count}; the first ${drawn.length.toLocaleString("en")} are listed ` : count;
  if (drawn.length < shown.length) {
    $("shown").append(button("list all", () => { view.all = true; draw(); }));
  }
  for (const head of $("columns").children) {
    const isSorted = head.dataset.key === view.sort;
    head.setAttribute("aria-sort", isSorted ? (view.isDown ? "descending" : "ascending") : "none");
  }
  for (const each of $("outcomes").children) {
    each.setAttribute("aria-pressed", String(each.dataset.outcome === view.outcome));
  }
}

function rowsOf(machine) {
  const row = element("tr"), isOpen = view.open.has(machine);
  row.className = "machine";
  for (const column of columns) {
    const text = column.text(machine);
    if (column.key === "name") {
      const name = button(text, () => turn(machine));
      name.setAttribute("aria-expanded", String(isOpen));
      row.append(element("th", "", name));
      row.firstChild.scope = "row";
    } else {
      const cell = element("td", text);
      cell.className = column.key === "outcome" ? `outcome ${senseOf(machine.outcome)}` : column.key;
      cell.dataset.title = column.title;
      row.append(cell);
    }
  }
  return isOpen ? [row, historyOf(machine)] : [row];
}

function turn(machine) {
  if (!view.open.delete(machine)) view.open.add(machine);
  const place = buttons().indexOf(document.activeElement);
  draw();
  if (place >= 0) buttons()[place].focus();
}

function historyOf(machine) {
  const facts = [
    machine.vendor, machine.system && `system ${machine.system}`,
    machine.tag && `service tag ${machine.tag}`,
    machine.computer && machine.name !== machine.computer && `on ${machine.computer}`,
    machine.seen && `last heard of ${timeText(machine.seen)}`,
  ].filter(Boolean).join(", ") || "Nothing is known of it.";
  const table = element("table"), head = element("tr");
  for (const title of ["when", "what", "BIOS", "outcome", "BIOS says", "because", "read in"]) {
    const cell = element("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(head, ...machine.steps.map(stepRow));
  const cell = element("td", "", element("p", facts), ...(machine.steps.length ? [table] : []));
  cell.colSpan = columns.length;
  const row = element("tr", "", cell);
  row.className = "history";
  return row;
}

function stepRow(step) {
  const versions = [step.from, step.to].filter(Boolean);
  const outcome = element("td", step.outcome && outcomeText(step.outcome));
  if (step.outcome) outcome.className = senseOf(step.outcome);
  const at = element("td", timeText(step.at));
  at.className = "at";
  return element("tr", "", at, element("td", step.what),
    element("td", versions[0] === versions[1] ? versions[0] : versions.join(" \u2192 ")),
    outcome, element("td", codeText(step.code)), element("td", step.why), element("td", step.source));
}

// -- filters, columns ----------------------------------------------------------------------

function fill() {
  const newest = machines.map((machine) => machine.seen).sort().at(-1);
  const heard = newest ? `, last heard of ${timeText(newest)}` : "";
  $("about").textContent = machines.length ? `${many(machines.length, "machine")}${heard}.` : "No machine.";
  for (const column of columns) {
    const head = element("th", "", button(column.title, () => sortBy(column.key)));
    head.scope = "col";
    head.dataset.key = column.key;
    $("columns").append(head);
  }
  const counts = new Map();
  for (const {outcome} of machines) counts.set(outcome, (counts.get(outcome) || 0) + 1);
  const found = [...counts.keys()].sort((a, b) => SENSES.indexOf(senseOf(a)) - SENSES.indexOf(senseOf(b))
    || counts.get(b) - counts.get(a));
  for (const outcome of found) {
    const each = button(`${outcomeText(outcome)}: ${counts.get(outcome).toLocaleString("en")}`, () => {
      view.outcome = view.outcome === outcome ? "" : outcome;
      draw();
    });
    each.className = senseOf(outcome);
    each.dataset.outcome = outcome;
    $("outcomes").append(each);
  }
  for (const key of filters) {
    const values = [...new Set(machines.map((machine) => machine[key]))].sort(collator.compare);
    const text = key === "code" ? codeText : (value) => value;
    $(key).append(element("option", "all"), ...values.map((value) => {
      const option = element("option", text(value) || "none");
      option.value = JSON.stringify(value);
      return option;
    }));
    $(key).firstChild.value = "";
    $(key).addEventListener("change", draw);
  }
}

function sortBy(key) {
  view.isDown = view.sort === key && !view.isDown;
  view.sort = key;
  draw();
}

function clear() {
  $("text").value = "";
  for (const key of filters) $(key).value = "";
  view.outcome = "";
  draw();
}

// -- keys ----------------------------------------------------------------------------------

const buttons = () => [...$("rows").querySelectorAll("tr.machine > th > button")];

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isInField = event.target.matches("input, select");
  if (event.key === "Escape") {
    clear();
  } else if (event.key === "/" && !isInField) {
    $("text").focus();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !event.target.matches("select")) {
    const all = buttons(), place = all.indexOf(event.target);
    const next = event.key === "ArrowDown" ? place + 1 : place < 0 ? -1 : place - 1;
    if (!all[next]) return;
    all[next].focus();
  } else {
    return;
  }
  event.preventDefault();
});
$("text").addEventListener("input", draw);
$("clear").addEventListener("click", clear);

fill();
draw();
