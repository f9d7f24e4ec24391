// What moves on every page. Each page works without it.

const html = document.documentElement;

/** An element with these properties and children; texts become text nodes, never markup. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function isDark() {
  return (html.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
}

for (const button of document.querySelectorAll("[data-theme-toggle]")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    // A cookie, so that the next page comes in its colors and none flashes.
    html.dataset.theme = isDark() ? "light" : "dark";
    document.cookie = `farebox_theme=${html.dataset.theme}; path=${html.dataset.root || "/"}; max-age=31536000; samesite=lax`;
  });
}

for (const button of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) continue; // only where the page came by https or from this machine
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}

for (const form of document.querySelectorAll("form[data-confirm]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.confirm)) event.preventDefault();
  });
}

const search = document.querySelector("[data-search]");
if (search) {
  search.hidden = false;
  const cards = [...document.querySelectorAll("[data-found]")];
  search.querySelector("input").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const card of cards) card.hidden = !words.every((word) => card.dataset.found.includes(word));
    document.querySelector("[data-nothing]").hidden = cards.some((card) => !card.hidden);
  });
}

for (const details of document.querySelectorAll("details[data-schema]")) {
  details.addEventListener("toggle", async () => {
    if (!details.open || details.querySelector("pre")) return;
    const answer = await fetch(details.dataset.schema);
    if (answer.ok) details.append(element("pre", { tabIndex: 0 }, element("code", {}, await answer.text())));
  });
}

const table = document.querySelector("[data-live]");
if (table) live(table);

/** Keeps the table of engines current while somebody looks. Rates are differences of two readings. */
function live(table) {
  const rows = new Map([...table.querySelectorAll("[data-engine]")].map((row) => [row.dataset.engine, row]));
  let before = null;
  const numbers = new Intl.NumberFormat("en-US");
  const show = (row, name, text) => (row.querySelector(`[data-of="${name}"]`).textContent = text);

  async function follow() {
    if (!document.hidden) {
      const answer = await fetch(table.dataset.live, { headers: { accept: "application/json" } }).catch(() => null);
      if (answer?.status === 401) return location.reload();
      if (answer?.ok) update((await answer.json()).engines, performance.now());
    }
    setTimeout(follow, 2000);
  }

  function update(engines, now) {
    for (const one of engines) {
      const row = rows.get(one.model);
      if (!row) continue;
      row.querySelector('[data-of="state"]').replaceChildren(element("span", { className: `state ${one.state}` }, one.state));
      for (const name of ["running", "waiting", "prompt_tokens", "completion_tokens"]) show(row, name, numbers.format(one[name]));
      show(row, "kv_cache", one.kv_cache === null ? "–" : `${(one.kv_cache * 100).toFixed(1)}%`);
      show(row, "lag_seconds", `${Math.round(one.lag_seconds * 1000)} ms`);
      const old = before?.engines.get(one.model);
      if (old !== undefined) show(row, "rate", (((one.completion_tokens - old) * 1000) / (now - before.now)).toFixed(1));
    }
    before = { now, engines: new Map(engines.map((one) => [one.model, one.completion_tokens])) };
  }

  setTimeout(follow, 500);
}
