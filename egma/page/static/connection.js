"use strict";
// The line to the server, beneath Gradio, whose page is dead once a request of it broke off. What the page asks is asked
// until it is answered. A server that has nothing of this page any more (it was started again, the page slept, others
// took the room) is sent again what made what is shown: the calls for the picture, the report, the recording.
(() => {
  const [PAUSE_MS, OF_A_PROXY] = [1500, [502, 504]]; // its answers where it reaches no server
  const BROKEN = "The connection broke before the answer came. What you typed and chose is still here: try again.";
  const MAKES = {
    start: "picture", choose_example: "picture", choose_image: "picture", align: "picture", read: "report", choose_report: "report",
    gaze: "recording", finish_recording: "recording",
  };
  const ask = window.fetch.bind(window);
  const forms = new Map(); // what was uploaded, by the path that the server gave it
  const open = new Map(); // calls that have no answer yet, by their event
  let made = []; // the calls that made what is shown, in their order

  const notice = egma.make("p", { class: "egma-notice", role: "status", hidden: true },
    "The server cannot be reached. What is shown, typed and recorded stays here, and goes on when it answers again.");
  function reached(yes) {
    if (!yes) document.querySelector(".gradio-container")?.append(notice);
    notice.hidden = yes;
  }

  async function answered(...request) {
    for (;;) {
      const answer = await ask(...request).catch((error) => error.name === "AbortError" && Promise.reject(error));
      const came = answer && !OF_A_PROXY.includes(answer.status);
      reached(Boolean(came));
      if (came) return answer;
      await new Promise((done) => setTimeout(done, PAUSE_MS));
    }
  }

  async function upload(address, init) {
    const chosen = init.body.get("files");
    init.body.set("files", new File([await chosen.arrayBuffer()], chosen.name)); // whatever becomes of the one on the disk
    const answer = await answered(address, init);
    if (answer.ok) forms.set((await answer.clone().json())[0], init.body);
    return answer;
  }

  async function join(address, init) {
    const { fn_index: number, session_hash: session } = JSON.parse(init.body);
    const kind = MAKES[window.gradio_config.dependencies.find((one) => one.id === number)?.api_name];
    const headers = new Headers(init.headers);
    if (made.length && kind !== "picture") headers.set("x-egma-shown", "yes");
    let answer = await answered(address, { ...init, headers });
    if (answer.status === 409) {
      for (const call of made) await again(call, address, init);
      answer = await answered(address, init);
      // by the end of this line it knows that the page is closed; Gradio asks for it once, and it broke
      void ask(address.replace(/queue\/join.*/, `heartbeat/${session}`)).then(({ body }) => body.pipeTo(new WritableStream())).catch(() => {});
    }
    if (answer.ok) open.set((await answer.clone().json()).event_id, { kind, body: init.body });
    return answer;
  }

  // A call once more, with its files; nothing waits for what it says.
  async function again(call, address, init) {
    for (const [path, body] of [...forms].filter(([one]) => call.body.includes(one))) {
      const answer = await upload(address.replace(/queue\/join.*/, "upload"), { method: "POST", body });
      if (answer.ok) call.body = call.body.replaceAll(path, (await answer.json())[0]);
    }
    await answered(address, { ...init, body: call.body });
  }

  function settle({ event_id: event, success, output }) {
    const call = open.get(event);
    open.delete(event);
    if (!success || !call?.kind) return;
    const stays = call.kind === "picture" ? [] : made.filter((one) => one.kind !== call.kind);
    made = call.kind === "picture" && !output.data[0] ? [] : [...stays, call];
    for (const path of forms.keys()) if (!made.some((one) => one.body.includes(path))) forms.delete(path);
  }

  // The answers as they come. Where the line breaks, each that is missing is told so, and Gradio goes on.
  async function listen(...request) {
    const answer = await answered(...request);
    const [reader, decoder] = [answer.body.getReader(), new TextDecoder()];
    let [rest, closed] = ["", false];

    function understood(message) {
      const told = JSON.parse(message.replace(/^data: /, ""));
      if (told.msg === "process_completed") settle(told);
      closed ||= told.msg === "close_stream";
      return told.msg !== "unexpected_error";
    }

    async function pull(out) {
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      const messages = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = messages.pop();
      if (!done && messages.every(understood)) return out.enqueue(value);
      const output = { error: BROKEN, visible: true, duration: 20 };
      const failed = closed ? [] : [...open.keys()].map((event) => ({ msg: "process_completed", event_id: event, success: false, output }));
      for (const told of [...failed, { msg: "close_stream" }]) {
        open.delete(told.event_id);
        out.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(told)}\n\n`));
      }
      out.close();
    }
    return new Response(new ReadableStream({ pull, cancel: () => reader.cancel() }), { headers: answer.headers });
  }

  window.fetch = (input, init) => {
    const { pathname } = new URL(input.url ?? input, document.baseURI);
    const [, way] = /\/(queue\/join|queue\/data|gradio_api\/upload)$/.exec(pathname) ?? [];
    return ({ "queue/join": join, "queue/data": listen, "gradio_api/upload": upload }[way] ?? ask)(input, init);
  };
})();
