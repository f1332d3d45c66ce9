// Phones and happenings, drawn on a canvas above the map: thousands of dots at the screen's pace.

const FRAME_MS = 33; // thirty times a second is smooth enough for people on foot
const SLOWEST_FRAME_MS = 600;
const GLIDE_MS = 900; // a phone glides to its new place
const TRAIL_MS = 12000;
const PULSE_MS = { entered: 1600, exited: 1600, dwelled: 1600, offer: 3200 };
const INK = { entered: "13 148 136", exited: "100 116 139", dwelled: "99 102 241", offer: "245 158 11", failed: "220 38 38" };
const FORGOTTEN_MS = 15 * 60000;
const REACH_PX = 12;

// A frame's time may lie a little before the event that it draws.
const portion = (spent, of) => Math.max(0, Math.min(1, spent / of));

export class Sky {
  constructor(canvas, map, { calmly = false } = {}) {
    this.canvas = canvas;
    this.map = map;
    this.calmly = calmly;
    this.pen = canvas.getContext("2d");
    this.phones = new Map();
    this.pulses = [];
    this.held = false;
    this.restless = 0; // until when something on the canvas moves by itself
    new ResizeObserver(() => this.fit()).observe(canvas);
    this.fit();
    this.map.on("move", () => this.draw(performance.now()));
    let [drawn, seen, gap] = [0, 0, FRAME_MS];
    const frame = (now) => {
      // A machine that cannot keep up is given longer and longer pauses.
      gap = now - seen > 80 ? Math.min(gap * 1.5, SLOWEST_FRAME_MS) : Math.max(gap * 0.9, FRAME_MS);
      seen = now;
      if (now - drawn >= gap && now < this.restless + gap && !document.hidden) {
        drawn = now;
        this.draw(now);
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  fit() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = this.canvas.clientWidth * ratio;
    this.canvas.height = this.canvas.clientHeight * ratio;
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.stir(0);
  }

  /** Something will move for so long. */
  stir(ms) {
    this.restless = Math.max(this.restless, performance.now() + ms);
  }

  /** Phones where they were last heard of, without a glide. */
  stand(devices) {
    const now = performance.now();
    this.stir(GLIDE_MS);
    for (const [id, lat, lng] of devices) {
      if (!this.phones.has(id)) this.phones.set(id, { lat, lng, from: [lng, lat], at: now - GLIDE_MS, trail: [] });
    }
  }

  move(devices) {
    const now = performance.now();
    this.stir(TRAIL_MS);
    for (const [id, lat, lng] of devices) {
      const known = this.phones.get(id);
      const from = known ? this.place(known, now) : [lng, lat];
      const trail = known ? known.trail.filter(([, , at]) => now - at < TRAIL_MS) : [];
      if (known) trail.push([...from, now]);
      this.phones.set(id, { lat, lng, from, at: now, trail: trail.slice(-14) });
    }
    for (const [id, phone] of this.phones) if (now - phone.at > FORGOTTEN_MS) this.phones.delete(id);
  }

  /** Where a phone is on its way between two reports. */
  place(phone, now) {
    const share = this.calmly ? 1 : portion(now - phone.at, GLIDE_MS);
    const eased = 1 - (1 - share) ** 3;
    return [phone.from[0] + (phone.lng - phone.from[0]) * eased, phone.from[1] + (phone.lat - phone.from[1]) * eased];
  }

  pulse(each) {
    if (each.lat === null || each.lat === undefined) return;
    const kind = each.kind === "offer" && each.outcome !== "sent" ? "failed" : each.kind;
    this.stir(PULSE_MS[kind] || 1600);
    this.pulses.push({ kind, lat: each.lat, lng: each.lng, at: performance.now(), device: each.device });
    if (this.pulses.length > 200) this.pulses.shift();
  }

  hold(held) {
    this.held = held;
    this.stir(0);
  }

  /** The phone under a point of the screen, or null. */
  near(x, y) {
    let best = null;
    let reach = REACH_PX;
    const now = performance.now();
    for (const [id, phone] of this.phones) {
      const at = this.map.project(this.place(phone, now));
      const far = Math.hypot(at.x - x, at.y - y);
      if (far < reach) [best, reach] = [id, far];
    }
    return best;
  }

  draw(now) {
    const pen = this.pen;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const zoom = this.map.getZoom();
    const size = Math.max(2.2, Math.min(5.5, (zoom - 9) * 0.8));
    pen.clearRect(0, 0, width, height);
    const spots = [];
    for (const phone of this.phones.values()) {
      const lngLat = this.place(phone, now);
      const at = this.map.project(lngLat);
      if (at.x < -20 || at.y < -20 || at.x > width + 20 || at.y > height + 20) continue;
      spots.push([at, phone]);
      if (zoom > 12) this.trail(phone, at, now, size);
    }
    for (const pulse of this.pulses) this.ring(pulse, now);
    this.pulses = this.pulses.filter((each) => now - each.at < (PULSE_MS[each.kind] || 1600));
    for (const [at, phone] of spots) {
      const age = (now - phone.at) / FORGOTTEN_MS;
      pen.globalAlpha = this.held ? 0.55 : Math.max(0.25, 1 - age * 2);
      pen.fillStyle = "#fff";
      pen.beginPath();
      pen.arc(at.x, at.y, size + 1.4, 0, 7);
      pen.fill();
      pen.fillStyle = "#0f766e";
      pen.beginPath();
      pen.arc(at.x, at.y, size, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }

  trail(phone, at, now, size) {
    const pen = this.pen;
    let end = at;
    pen.lineWidth = size * 0.7;
    pen.lineCap = "round";
    for (let index = phone.trail.length - 1; index >= 0; index -= 1) {
      const [lng, lat, when] = phone.trail[index];
      const age = portion(now - when, TRAIL_MS);
      if (age >= 1) break;
      const start = this.map.project([lng, lat]);
      pen.strokeStyle = `rgb(13 148 136 / ${0.38 * (1 - age)})`;
      pen.beginPath();
      pen.moveTo(start.x, start.y);
      pen.lineTo(end.x, end.y);
      pen.stroke();
      end = start;
    }
  }

  ring(pulse, now) {
    const pen = this.pen;
    const lasts = PULSE_MS[pulse.kind] || 1600;
    const share = portion(now - pulse.at, lasts);
    const known = pulse.kind === "offer" ? this.phones.get(pulse.device) : null;
    const at = this.map.project(known ? this.place(known, now) : [pulse.lng, pulse.lat]);
    const ink = INK[pulse.kind] || INK.entered;
    const eased = 1 - (1 - share) ** 2;
    const big = pulse.kind === "offer" || pulse.kind === "failed";
    pen.strokeStyle = `rgb(${ink} / ${0.9 * (1 - share)})`;
    pen.fillStyle = `rgb(${ink} / ${0.22 * (1 - share)})`;
    pen.lineWidth = big ? 2.5 : 1.6;
    pen.beginPath();
    pen.arc(at.x, at.y, this.calmly ? 12 : 5 + eased * (big ? 30 : 17), 0, 7);
    pen.fill();
    pen.stroke();
    if (big) {
      pen.fillStyle = `rgb(${ink} / ${1 - share * 0.8})`;
      pen.beginPath();
      pen.arc(at.x, at.y, 7.5, 0, 7);
      pen.fill();
    }
  }
}
