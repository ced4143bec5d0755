// A provider of OpenID Connect, for tests: everybody who says a name is who it says.
//
//     provider.mjs PACKAGES REDIRECT
//
// Prints the port when it listens.

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [packages, redirect] = process.argv.slice(2);
const require = createRequire(`${packages}/`);
const { default: Provider } = await import(pathToFileURL(require.resolve("oidc-provider")));

const server = createServer((request, response) => handler(request, response));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const { port } = server.address();

const client = (id, more) => ({
  client_id: id,
  client_secret: "a%secret",
  redirect_uris: [redirect],
  ...more,
});
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [client("relay", {})],
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["preferred_username"] },
  // What a client asks for stands in the ID token itself.
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({
      sub: id,
      preferred_username: id,
      email: `${id}@example.com`,
      email_verified: id !== "unverified",
    }),
  }),
});
const handler = provider.callback();
console.log(port);
// Ends with the test, whatever becomes of that.
process.stdin.on("end", () => process.exit(0)).resume();
