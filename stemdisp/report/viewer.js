// The interactive views of a report: layers, zoom, and what the pointer points at.
// Text goes into the page as text only, never as markup.
"use strict";
(() => {
  const holder = document.getElementById("view-data");
  if (holder === null || window.Bokeh === undefined) return;
  const given = JSON.parse(holder.textContent);
  const MINUS = "\u2212", UNKNOWN = "\u2013";
  const POINTER_PX = 12;
  // Share of the width or height of the window that the image may take.
  const MOST_HIGH = 0.82;

  const element = (id) => document.getElementById(id);

  // ---- words -------------------------------------------------------------------------------
  function decimals(value, places) {
    const text = value.toFixed(places);
    return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", MINUS);
  }

  // A value to the digits that its error calls for: two up to 354, one above, as in the tables.
  function measured(value, error, unit) {
    if (value === undefined || !Number.isFinite(value)) return null;
    const known = Number.isFinite(error) && error > 0;
    const power = known ? Math.floor(Math.log10(error)) : 0;
    const places = known ? Math.max((error < 3.545 * 10 ** power ? 1 : 0) - power, 0) : 3;
    const text = decimals(value, places);
    return (known ? `${text} \u00b1 ${error.toFixed(places)}` : text) + (unit ? ` ${unit}` : "");
  }

  function qualityWords(bits) {
    if (bits === 0) return "good";
    const words = given.quality.filter(([bit]) => bits & bit).map(([, words]) => words);
    return words.join("; ") + (bits & given.unusable ? " (left out of averages)" : "");
  }

  function describeColumn(species, source, k) {
    const data = source.data;
    const at = (name) => (data[name] === undefined ? undefined : data[name][k]);
    const rows = [["species", given.species[species]]];
    if (data.N !== undefined) rows.push(["plane N", at("N") === given.noPlane ? UNKNOWN : decimals(at("N"), 0)]);
    const [sx, sy] = given.pixel;
    rows.push(
      ["lattice i, j", `${decimals(at("i"), 2)}, ${decimals(at("j"), 2)}`],
      ["x, y (px)", `${decimals(at("x") / sx, 2)}, ${decimals(at("y") / sy, 2)}`],
      ["x, y (nm)", `${decimals(at("x"), 3)}, ${decimals(at("y"), 3)}`],
    );
    const values = [
      ["\u03b4", measured(at("delta"), at("delta_err"), "\u00c5")],
      ["\u03b4\u22a5", measured(at("perp"), at("perp_err"), "\u00c5")],
      ["occupancy", measured(at("occ"), at("occ_err"), "")],
    ];
    rows.push(...values.filter(([, value]) => value !== null));
    rows.push(["quality", qualityWords(at("quality"))]);
    return rows;
  }

  function describePlane(source, k, unit) {
    const data = source.data;
    const rows = [
      ["plane mean, N", decimals(data.N[k], 0)],
      ["mean, total error", measured(data.value[k], data.total[k], unit)],
    ];
    if (data.noise !== undefined) rows.push(["noise alone", `\u00b1 ${data.noise[k].toPrecision(2)} ${unit}`]);
    rows.push(["columns", String(data.count[k])]);
    return rows;
  }

  // ---- the box beside the pointer ----------------------------------------------------------
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);

  function showTip(rows, x, y) {
    const list = document.createElement("dl");
    for (const [name, value] of rows) {
      const term = document.createElement("dt");
      const words = document.createElement("dd");
      term.textContent = name;
      words.textContent = value;
      list.append(term, words);
    }
    tip.replaceChildren(list);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = document.documentElement.clientWidth;
    const left = x + 16 + width > right ? x - 16 - width : x + 16;
    const top = y + 16 + height > window.innerHeight ? y - 16 - height : y + 16;
    tip.style.left = `${Math.max(left, 4)}px`;
    tip.style.top = `${Math.max(top, 4)}px`;
  }

  // ---- geometry ----------------------------------------------------------------------------
  // The nearest point within a distance in pixels of the screen; -1 for none.
  function nearest(figure, xs, ys, event, reachPx) {
    const kx = figure.inner_width / (figure.x_range.end - figure.x_range.start);
    const ky = figure.inner_height / (figure.y_range.end - figure.y_range.start);
    let best = -1, least = reachPx * reachPx;
    for (let k = 0; k < xs.length; k++) {
      const dx = (xs[k] - event.x) * kx, dy = (ys[k] - event.y) * ky;
      const away = dx * dx + dy * dy;
      if (away <= least) [best, least] = [k, away];
    }
    return [best, least];
  }

  function inView(figure) {
    const [x0, x1] = [figure.x_range.start, figure.x_range.end].sort((a, b) => a - b);
    const [y0, y1] = [figure.y_range.start, figure.y_range.end].sort((a, b) => a - b);
    return (x, y) => x > x0 && x < x1 && y > y0 && y < y1;
  }

  // ---- arrows: single columns where few are seen, means over blocks where many are -----------
  function drawArrows(figure, source, columns, blocks, label) {
    const { matrix, magnification, most, blocks: large } = given.arrows;
    const seen = [], inside = inView(figure), data = columns.data;
    for (let k = 0; k < data.x.length; k++) {
      if (Number.isFinite(data.delta[k]) && !(data.quality[k] & given.unusable) && inside(data.x[k], data.y[k])) seen.push(k);
    }
    const many = large !== undefined && seen.length > most;
    const from = many ? blocks.data : data;
    const scale = many ? large.magnification : magnification;
    const out = { x0: [], y0: [], x1: [], y1: [] };
    const stroke = (x0, y0, x1, y1) => { out.x0.push(x0); out.y0.push(y0); out.x1.push(x1); out.y1.push(y1); };
    for (const k of many ? from.x.keys() : seen) {
      const d = from.delta[k], p = from.perp !== undefined && Number.isFinite(from.perp[k]) ? from.perp[k] : 0;
      const vx = (d * matrix[0][0] + p * matrix[1][0]) * scale;
      const vy = (d * matrix[0][1] + p * matrix[1][1]) * scale;
      const [tx, ty] = [from.x[k] + vx / 2, from.y[k] + vy / 2];
      stroke(from.x[k] - vx / 2, from.y[k] - vy / 2, tx, ty);
      for (const turn of [2.65, -2.65]) {
        const [c, s] = [0.34 * Math.cos(turn), 0.34 * Math.sin(turn)];
        stroke(tx, ty, tx + c * vx - s * vy, ty + s * vx + c * vy);
      }
    }
    source.data = out;
    if (label !== null) {
      const times = `arrows ${Number(scale.toPrecision(3))} times as long as the displacement`;
      label.textContent = many ? `${times}; means over ${large.side} \u00d7 ${large.side} cells: zoom in for columns` : times;
    }
  }

  // ---- plane numbers along the right or lower edge of what is seen ---------------------------
  function drawNumbers(figure, source, columns) {
    const [nx, ny] = given.normal, inside = inView(figure), data = columns.data;
    const x0 = Math.min(figure.x_range.start, figure.x_range.end), x1 = Math.max(figure.x_range.start, figure.x_range.end);
    const y0 = Math.min(figure.y_range.start, figure.y_range.end), y1 = Math.max(figure.y_range.start, figure.y_range.end);
    const upright = Math.abs(ny) >= Math.abs(nx);
    const edge = upright ? x1 - 6 * (x1 - x0) / figure.inner_width : y1 - 12 * (y1 - y0) / figure.inner_height;
    const last = new Map(); // of each plane the column next to that edge
    for (let k = 0; k < data.x.length; k++) {
      const n = data.N[k];
      if (n < 1 || !inside(data.x[k], data.y[k])) continue;
      const place = upright ? data.x[k] : data.y[k];
      if (!last.has(n) || place > last.get(n)[0]) last.set(n, [place, k]);
    }
    const labels = [...last.entries()].map(([n, [, k]]) => {
      const away = edge - (upright ? data.x[k] : data.y[k]);
      return upright ? { n, x: edge, y: data.y[k] - away * nx / ny } : { n, x: data.x[k] - away * ny / nx, y: edge };
    });
    const perPx = upright ? figure.inner_height / (y1 - y0) : figure.inner_width / (x1 - x0);
    const places = labels.map((one) => (upright ? one.y : one.x));
    const spacing = labels.length > 1 ? (Math.max(...places) - Math.min(...places)) * perPx / (labels.length - 1) : Infinity;
    const every = [1, 2, 5, 10, 20, 50, 100].find((step) => step * spacing >= (upright ? 19 : 34)) ?? 200;
    const kept = labels.filter(({ n, x, y }) => (n === 1 || n % every === 0) && (upright ? y > y0 && y < y1 : x > x0 && x < x1))
      .filter(({ n }) => n === 1 || every === 1 || n > every / 2);
    source.data = { x: kept.map((one) => one.x), y: kept.map((one) => one.y), text: kept.map(({ n }) => (n === 1 ? "N = 1" : String(n))) };
  }

  // ---- everything together -------------------------------------------------------------------
  function connectImage(figure, find) {
    const sources = given.species.map((_, k) => find(`columns-${k}`));
    const home = [figure.x_range.start, figure.x_range.end, figure.y_range.start, figure.y_range.end];
    const frame = element("view-viewer"), space = frame.closest(".explore");

    const layers = new Map();
    for (const renderer of figure.renderers) {
      if (!layers.has(renderer.name)) layers.set(renderer.name, []);
      layers.get(renderer.name).push(renderer);
    }
    const boxes = [...document.querySelectorAll("input[data-layer]")];
    const apply = (box) => layers.get(box.dataset.layer)?.forEach((one) => { one.visible = box.checked; });
    for (const box of boxes) {
      box.addEventListener("change", () => apply(box));
      apply(box); // a browser may remember boxes from before
    }

    let waiting = false;
    const refresh = () => {
      waiting = false;
      const displaced = sources[given.displaced];
      if (given.arrows) drawArrows(figure, find("arrow-strokes"), displaced, find("block-means"), element("view-arrow-key"));
      if (given.normal && displaced?.data.N !== undefined) drawNumbers(figure, find("number-places"), displaced);
    };
    const later = () => {
      if (!waiting) requestAnimationFrame(refresh);
      waiting = true;
    };
    figure.x_range.change.connect(later);
    figure.y_range.change.connect(later);

    const zoom = (factor) => {
      for (const range of [figure.x_range, figure.y_range]) {
        const middle = (range.start + range.end) / 2, half = (range.end - range.start) / 2;
        range.setv({ start: middle - half * factor, end: middle + half * factor });
      }
    };
    const whole = () => {
      figure.x_range.setv({ start: home[0], end: home[1] });
      figure.y_range.setv({ start: home[2], end: home[3] });
    };
    element("view-in").addEventListener("click", () => zoom(1 / 1.5));
    element("view-out").addEventListener("click", () => zoom(1.5));
    element("view-whole").addEventListener("click", whole);

    // The frame takes the shape of the image, as wide as there is room and never higher than the window.
    const fit = () => {
      const shape = Math.abs((home[3] - home[2]) / (home[1] - home[0]));
      const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
      const beside = window.matchMedia("(min-width: 60rem)").matches ? 19 * rem : 0;
      const room = space.clientWidth - beside - 2;
      const width = Math.max(Math.floor(Math.min(room, (MOST_HIGH * window.innerHeight - 40) / shape)), 160);
      const height = Math.max(Math.round(width * shape), 60);
      if (figure.frame_width !== width || figure.frame_height !== height) {
        // Bokeh before 3.9.2 lays out again when the bounds of the whole change, not those of the frame.
        figure.setv({ frame_width: width, frame_height: height, min_width: width, min_height: height });
      }
      later();
    };
    new ResizeObserver(fit).observe(space);
    window.addEventListener("resize", fit);
    fit();

    const mark = find("marked");
    const point = (species, k) => {
      mark.data = species < 0 ? { x: [], y: [] } : { x: [sources[species].data.x[k]], y: [sources[species].data.y[k]] };
    };
    const look = (event) => {
      const perNm = figure.inner_width / Math.abs(figure.x_range.end - figure.x_range.start);
      let found = [-1, -1], least = Infinity;
      sources.forEach((source, s) => {
        const [k, away] = nearest(figure, source.data.x, source.data.y, event, Math.max(given.reach * perNm, 4));
        if (k >= 0 && away < least) [found, least] = [[s, k], away];
      });
      point(...found);
      return found[0] < 0 ? null : describeColumn(found[0], sources[found[0]], found[1]);
    };
    answer(figure, frame, look, () => point(-1, -1));

    // Columns chosen in a profile are shown in the image.
    sources.forEach((source, k) => {
      source.selected.change.connect(() => {
        const box = boxes.find((one) => one.dataset.layer === `rings-${k}`);
        if (source.selected.indices.length > 0 && box !== undefined && !box.checked) box.click();
      });
    });
    return { sources, point };
  }

  function connectProfile(figure, find, name, species, image) {
    const frame = element(`view-${name}`), unit = name === "delta" ? "\u00c5" : "";
    const columns = image.sources[species], means = find(`means-${name}`);
    const look = (event) => {
      const [plane] = nearest(figure, means.data.N, means.data.value, event, POINTER_PX);
      if (plane >= 0) {
        image.point(-1, -1);
        return describePlane(means, plane, unit);
      }
      const [k] = nearest(figure, columns.data.spread, columns.data[name], event, POINTER_PX);
      image.point(k < 0 ? -1 : species, k);
      return k < 0 ? null : describeColumn(species, columns, k);
    };
    answer(figure, frame, look, () => image.point(-1, -1));
  }

  // Show what `look` finds under the pointer, or under a finger.
  function answer(figure, frame, look, forget) {
    let pointer = [0, 0];
    const remember = (event) => { pointer = [event.clientX, event.clientY]; };
    frame.addEventListener("pointermove", remember, true);
    frame.addEventListener("pointerdown", remember, true);
    const show = (event) => {
      const rows = look(event);
      if (rows === null) tip.hidden = true;
      else showTip(rows, ...pointer);
    };
    figure.on_event("mousemove", show);
    figure.on_event("tap", show);
    const end = () => {
      tip.hidden = true;
      forget();
    };
    // A finger leaves at once; what it asked for stays until the next touch or scrolling.
    frame.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") end(); });
    document.addEventListener("pointerdown", (event) => { if (!frame.contains(event.target)) end(); });
    window.addEventListener("scroll", end, { passive: true });
  }

  async function start() {
    // Bokeh's own function would write to the console that it has become quiet.
    Bokeh.logger?.set_level("error");
    document.documentElement.classList.add("live");
    const ids = Object.keys(given.roots);
    await Bokeh.embed.embed_items({ run: given.document }, [{ docid: "run", roots: given.roots, root_ids: ids }]);
    const made = Bokeh.documents[Bokeh.documents.length - 1];
    const find = (name) => made.get_model_by_name(name);
    const image = connectImage(find("viewer"), find);
    const profiles = [["delta", given.displaced], ["occ", given.anion]];
    for (const [name, species] of profiles) {
      const figure = find(name);
      if (figure !== null) connectProfile(figure, find, name, species, image);
    }
    document.documentElement.dataset.views = "ready";
  }

  start().catch((error) => {
    document.documentElement.classList.remove("live");
    throw error;
  });
})();
