// What comes on top of pages that work without it: times in the reader's zone, copying, and live numbers.

const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function localize(root) {
  for (const time of root.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    time.textContent = clock.format(moment);
    time.title = exact.format(moment);
  }
}

function reveal(root) {
  for (const hidden of root.querySelectorAll("button.copy, label.all")) hidden.hidden = false;
}

// -- copying

async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea"); // over plain http browsers have no clipboard
  area.value = text;
  area.className = "hidden";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  if (!copied) throw new Error("not copied");
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const label = button.textContent;
  const bytes = Uint8Array.from(atob(button.dataset.copy), (one) => one.charCodeAt(0));
  try {
    await copy(new TextDecoder().decode(bytes));
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => (button.textContent = label), 1500);
});

// -- choosing and sending

document.addEventListener("change", (event) => {
  if (!event.target.matches("input[data-all]")) return;
  for (const box of document.querySelectorAll('input[name="id"][type="checkbox"]')) box.checked = event.target.checked;
});

// A second click while the first is under way would only repeat it.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  else if (event.target.method === "post") event.target.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// One menu at a time; Escape and a click elsewhere close it.
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// -- live numbers

const state = document.getElementById("state");
let source = null;
let later = 0;

function say(kind, text) {
  if (state.textContent !== text) state.textContent = text;
  state.dataset.state = kind;
  state.hidden = false;
}

let rows = new Map(); // of a table, as they were sent last

function show(html) {
  const part = document.createElement("template");
  part.innerHTML = html;
  localize(part.content); // before it is shown, so that no time flickers
  for (const row of part.content.querySelectorAll("tr[id]")) {
    if (!row.hasChildNodes() && rows.has(row.id)) row.innerHTML = rows.get(row.id); // nothing is new in it
  }
  rows = new Map([...part.content.querySelectorAll("tr[id]")].map((row) => [row.id, row.innerHTML]));
  window.htmx.swap({ sourceElement: document.body, target: "#live", text: part.innerHTML, swap: "innerMorph" });
}

// -- lists, which are of the moment at which they were loaded

const RELOAD = 5000; // ms between two of the same list, which is asked for by this tab alone
const LONGEST = 300000; // characters of a list that is loaded again by itself
let listed = null; // what tells one moment's list from another's
let loading = false;
let gone = false; // what the page is about
let loaded = Date.now();

// Whether nobody would miss what is shown now, or click on what has moved: nothing in it is chosen, opened, focused,
// marked or pointed at, and it is the first page.
function untouched(list) {
  return (
    !gone &&
    !location.search.includes("after=") &&
    list.innerHTML.length < LONGEST &&
    !list.matches(":hover") &&
    !list.contains(document.activeElement) &&
    !list.querySelector("details[open], input:checked") &&
    document.getSelection().isCollapsed
  );
}

async function renew(list) {
  loading = true;
  loaded = Date.now();
  try {
    const answer = await fetch(location.href.split("#")[0], { headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const news = page.getElementById("list");
    gone = answer.status === 404;
    if (!answer.ok || !news || !untouched(list)) return;
    localize(news);
    reveal(news);
    window.htmx.swap({ sourceElement: document.body, target: "#list", text: news.innerHTML, swap: "innerMorph" });
    listed = page.querySelector("[data-list]")?.dataset.list ?? listed;
  } catch {
    // The numbers say that there is no connection; the next ones bring another attempt.
  } finally {
    loading = false;
  }
}

function follow() {
  const list = document.getElementById("list");
  const now = document.querySelector("[data-list]")?.dataset.list;
  if (!list || !now) return;
  listed ??= now;
  const changed = now !== listed;
  if (changed && !loading && Date.now() - loaded >= RELOAD && untouched(list)) renew(list);
  document.getElementById("newer").hidden = !changed || untouched(list);
}

function watch() {
  clearTimeout(later);
  if (source || document.hidden) return;
  source = new EventSource(document.body.dataset.live);
  source.addEventListener("part", (event) => {
    say("live", "Live");
    show(event.data);
    follow();
  });
  source.addEventListener("error", () => {
    say("waiting", "Reconnecting…");
    if (source.readyState === EventSource.CLOSED) {
      source = null;
      later = setTimeout(watch, 3000);
    }
  });
}

// A tab that nobody sees keeps no connection: browsers have six of them for each server.
function look() {
  if (document.hidden) {
    source?.close();
    source = null;
  } else watch();
}

listed = document.querySelector("[data-list]")?.dataset.list || null;
localize(document);
reveal(document);
document.querySelector(".tabs [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
if (document.body.dataset.live) {
  say("waiting", "Connecting…");
  document.addEventListener("visibilitychange", look);
  window.addEventListener("pagehide", () => (source?.close(), (source = null)));
  window.addEventListener("pageshow", look);
  look();
}
