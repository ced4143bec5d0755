// A browser, as far as a sign-in needs one: it follows redirects, keeps cookies, and fills in the provider's forms.
//
//     browser.mjs URL NAME [PRESS]
//
// NAME is who signs in. PRESS is which button of the relay's own form is pressed, if there is one; `leave` is to go
// away instead of coming back to the relay. Prints where it has ended as JSON.

const [start, name, press] = process.argv.slice(2);
const jars = new Map();

const jarOf = (url) => {
  // Cookies know no port; those of the two servers differ in name.
  const jar = jars.get(url.hostname) ?? new Map();
  jars.set(url.hostname, jar);
  return jar;
};

async function load(url, options = {}) {
  for (let hops = 0; hops < 20; hops += 1) {
    const jar = jarOf(url);
    const headers = { accept: "text/html", cookie: [...jar].map((pair) => pair.join("=")).join("; ") };
    const answer = await fetch(url, { ...options, redirect: "manual", headers: { ...options.headers, ...headers } });
    for (const cookie of answer.headers.getSetCookie()) {
      const [pair, ...attributes] = cookie.split("; ");
      const at = pair.indexOf("=");
      const isGone = attributes.some((attribute) => attribute.startsWith("expires=Thu, 01 Jan 1970"));
      if (isGone) jar.delete(pair.slice(0, at));
      else jar.set(pair.slice(0, at), pair.slice(at + 1));
    }
    const location = answer.headers.get("location");
    if (!location) return { url, status: answer.status, text: await answer.text() };
    url = new URL(location, url);
    options = {};
    if (press === "leave" && url.pathname.endsWith("/callback")) return { url, status: 0, text: "" };
  }
  throw new Error("it goes round in a circle");
}

const fields = (form) => {
  const values = new URLSearchParams();
  for (const [input] of form.matchAll(/<input[^>]*>/g)) {
    const value = (attribute) => input.match(new RegExp(`${attribute}="([^"]*)"`))?.[1];
    if (value("name")) values.set(value("name"), value("value") ?? "");
  }
  return values;
};

let page = await load(new URL(start));
for (let forms = 0; forms < 10; forms += 1) {
  const [form, action] = page.text.match(/<form[^>]*action="([^"]*)"[^]*?<\/form>/) ?? [];
  if (!form) break;
  const values = fields(form);
  if (values.has("login")) {
    values.set("login", name);
    values.set("password", "any");
  } else if (values.has("sign_in")) {
    if (!press) break;
    values.set("decision", press);
  }
  page = await load(new URL(action, page.url), {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body: values.toString(),
  });
}
const cookies = [...jarOf(page.url)].map((pair) => pair.join("=")).join("; ");
console.log(JSON.stringify({ url: page.url.href, status: page.status, text: page.text, cookies }));
