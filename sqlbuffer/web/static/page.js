// Keeps a page up to date: every few seconds it fetches itself, and changes what has changed in the
// parts marked data-live. Focus, selection, scrolling and open details stay.
"use strict";

(() => {
  const EVERY_MS = 3000;
  const CHARTS_EVERY_MS = 6000;
  const parts = [...document.querySelectorAll("[data-live]")];
  const charts = [...document.querySelectorAll("[data-chart]")];
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  const shown = new Map(); // chart -> the text of its figure
  let isPaused = false;
  let chartsAt = 0;

  function follow(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
      old.replaceWith(fresh.cloneNode(true));
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...fresh.childNodes];
    after.forEach((child, place) => {
      if (place < before.length) follow(before[place], child);
      else old.append(child.cloneNode(true));
    });
    before.slice(after.length).forEach((child) => child.remove());
  }

  async function text(url) {
    const answer = await fetch(url, { credentials: "same-origin", cache: "no-store" });
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    return answer.text();
  }

  async function refreshParts() {
    const fresh = new DOMParser().parseFromString(await text(location.href), "text/html");
    for (const part of parts) {
      const now = fresh.getElementById(part.id);
      if (now !== null && now.innerHTML !== part.innerHTML) follow(part, now);
    }
  }

  async function refreshChart(element) {
    try {
      const found = await text(element.dataset.chart);
      element.classList.remove("failed-to-load");
      if (found === shown.get(element)) return;
      shown.set(element, found);
      const figure = JSON.parse(found);
      await sqlbufferCharts.draw(element, figure);
      const note = document.getElementById(element.id.replace("chart-", "note-"));
      if (note !== null) note.textContent = figure.note;
    } catch (error) {
      if (!shown.has(element)) element.classList.add("failed-to-load");
      throw error;
    }
  }

  async function refreshCharts() {
    for (const each of charts) {
      const { top, bottom } = each.getBoundingClientRect();
      const isNear = bottom > -400 && top < window.innerHeight + 800;
      if (isNear || !shown.has(each)) await refreshChart(each);
    }
    chartsAt = performance.now();
  }

  function say(state, words) {
    live.className = `live ${state}`;
    live.textContent = words;
  }

  async function look() {
    if (!isPaused && !document.hidden) {
      try {
        await refreshParts();
        if (charts.length && performance.now() - chartsAt > CHARTS_EVERY_MS) await refreshCharts();
        if (!isPaused) say("", "live");
      } catch {
        say("lost", "no answer, trying again");
      }
    }
    setTimeout(look, EVERY_MS);
  }

  async function begin() {
    if (charts.length) {
      sqlbufferCharts.setDarkColors(JSON.parse(document.body.dataset.dark));
      await refreshCharts().catch(() => say("lost", "no answer, trying again"));
    }
    if (!parts.length && !charts.length) return;
    setTimeout(look, EVERY_MS);
  }

  if (parts.length || charts.length) {
    live.hidden = pause.hidden = false;
    pause.addEventListener("click", () => {
      isPaused = !isPaused;
      pause.textContent = isPaused ? "Resume" : "Pause";
      say(isPaused ? "stopped" : "", isPaused ? "paused" : "live");
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && !isPaused) refreshParts().catch(() => {});
    });
  }
  begin();
})();
