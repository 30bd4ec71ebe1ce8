// Keeps what is shown up to date, without losing focus, selection or scroll. The page works without this script.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = (() => { try { return localStorage.getItem("theme"); } catch { return null; } })();
  if (stored === "dark" || stored === "light") root.dataset.theme = stored;

  const theme = document.getElementById("theme");
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* kept for this page only */ }
  });

  const main = document.getElementById("content");
  const lost = document.getElementById("lost");
  if (main.dataset.live !== "true") return;
  let pressed = false;
  addEventListener("pointerdown", () => { pressed = true; });
  addEventListener("pointerup", () => { pressed = false; });
  addEventListener("pointercancel", () => { pressed = false; });

  const period = 500; // ms: what is reported each second is seen by the next but one look
  let seen = Date.now();
  let shown = "";

  const swap = (text) => {
    const selection = getSelection();
    if (text === shown || pressed || (selection && !selection.isCollapsed)) return;
    const active = document.activeElement;
    const key = active && main.contains(active) ? active.getAttribute("data-key") : null;
    const scrolls = [...main.querySelectorAll(".canvas, .scroll")].map((e) => [e.scrollLeft, e.scrollTop]);
    const open = new Set([...main.querySelectorAll("details[open]")].map((e) => e.getAttribute("data-key")));
    main.innerHTML = text;
    shown = text;
    [...main.querySelectorAll(".canvas, .scroll")].forEach((e, i) => {
      if (scrolls[i]) [e.scrollLeft, e.scrollTop] = scrolls[i];
    });
    for (const e of main.querySelectorAll("details")) if (open.has(e.getAttribute("data-key"))) e.open = true;
    if (key) {
      const again = [...main.querySelectorAll("[data-key]")].find((e) => e.getAttribute("data-key") === key);
      if (again) again.focus({ preventScroll: true });
    }
  };

  const refresh = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { headers: { "x-ferromesh-part": "1" }, signal: AbortSignal.timeout(5000) });
        if (!answer.ok) throw new Error(String(answer.status));
        swap(await answer.text());
        seen = Date.now();
        lost.hidden = true;
      } catch {
        const seconds = Math.round((Date.now() - seen) / 1000);
        lost.textContent = `mixer has not answered for ${seconds} s. What is shown is as old as that; it goes on by itself when mixer is back.`;
        lost.hidden = seconds < 2;
      }
    }
    setTimeout(refresh, period);
  };
  setTimeout(refresh, period);
})();
