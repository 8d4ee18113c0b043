/* Copyright: (c) 2026, kvm.passthrough contributors
   SPDX-License-Identifier: GPL-3.0-or-later

   Filter, sort, open and close. Without this script the page shows everything all the same. */
"use strict";
(() => {
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  const search = document.getElementById("search");
  if (!search) return; // a page about a single host has nothing to filter
  const matches = document.getElementById("matches");
  const nothing = document.getElementById("nothing");
  const table = document.getElementById("overview");
  const body = table.tBodies[0];
  const tiles = all("button.tile");

  const hosts = all("tr[data-host]", body).map((row) => ({
    row,
    details: document.getElementById(`host-${row.dataset.host}`),
    verdict: row.dataset.verdict,
    text: null,
  }));

  // The text of a host is gathered once, when somebody first looks for something.
  const textOf = (host) => {
    host.text ??= `${host.row.textContent} ${host.details.textContent}`.toLowerCase();
    return host.text;
  };

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const pressed = tiles.filter((tile) => tile.getAttribute("aria-pressed") === "true");
    const verdicts = new Set(pressed.map((tile) => tile.dataset.verdict));
    let shown = 0;
    for (const host of hosts) {
      const fits =
        (verdicts.size === 0 || verdicts.has(host.verdict)) && words.every((word) => textOf(host).includes(word));
      host.row.hidden = host.details.hidden = !fits;
      shown += fits;
    }
    const total = `${hosts.length} host${hosts.length === 1 ? "" : "s"}`;
    matches.value = shown === hosts.length ? total : `${shown} of ${total}`;
    nothing.hidden = shown !== 0;
  };

  search.addEventListener("input", filter);
  for (const tile of tiles) {
    tile.addEventListener("click", () => {
      tile.setAttribute("aria-pressed", String(tile.getAttribute("aria-pressed") !== "true"));
      filter();
    });
  }
  for (const button of all("button[data-search]")) {
    button.addEventListener("click", () => {
      search.value = button.dataset.search;
      filter();
      document.getElementById("hosts").scrollIntoView({ block: "start" });
      search.focus({ preventScroll: true });
    });
  }
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && event.target === search) {
      search.value = "";
      filter();
    }
  });

  // -- sort ---------------------------------------------------------------------------------------------------

  const names = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  const sort = (heading) => {
    const column = heading.cellIndex;
    const byNumber = heading.dataset.sort !== "text";
    const direction = heading.getAttribute("aria-sort");
    // Numbers start with the largest, since that is what one looks for; verdicts with the worst, which is 0.
    const first = heading.dataset.sort === "number" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const wanted = direction === first ? other : first;
    const value = (host) => {
      const cell = host.row.cells[column];
      return byNumber ? Number(cell.dataset.value) : cell.textContent;
    };
    const sign = wanted === "ascending" ? 1 : -1;
    const place = (host) => Number(host.row.dataset.host);
    hosts.sort((a, b) => {
      const difference = byNumber ? value(a) - value(b) : names.compare(value(a), value(b));
      return sign * difference || place(a) - place(b);
    });
    for (const other of all("th[data-sort]", table)) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", wanted);
    body.append(...hosts.map((host) => host.row));
    hosts[0]?.details.parentNode.append(...hosts.map((host) => host.details));
  };

  for (const heading of all("th[data-sort]", table)) {
    heading.querySelector("button").addEventListener("click", () => sort(heading));
  }

  // -- open and close -------------------------------------------------------------------------------------------

  const setOpen = (open) => {
    for (const host of hosts) if (!host.details.hidden) host.details.open = open;
  };
  document.getElementById("open-all").addEventListener("click", () => setOpen(true));
  document.getElementById("close-all").addEventListener("click", () => setOpen(false));

  const reveal = () => {
    const target = /^#host-\d+$/.test(location.hash) && document.querySelector(location.hash);
    if (target) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", reveal);
  // The link of a host that is open already in the address bar opens it again.
  for (const link of all("a[href^='#host-']", body)) link.addEventListener("click", () => setTimeout(reveal));
  reveal();
})();
