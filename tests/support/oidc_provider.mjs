// A real OpenID Connect provider for tests: PORT, JWKS (a JSON key set) and ACCOUNTS (claims by login) come
// from the environment. Any password is taken; the forms are the library's own.
import Provider from "oidc-provider";

const accounts = JSON.parse(process.env.ACCOUNTS);
const port = Number(process.env.PORT);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "roost",
      client_secret: "a-secret-of-the-tests-alone",
      redirect_uris: ["http://127.0.0.1/done"],
      application_type: "native",
      id_token_signed_response_alg: process.env.ALGORITHM,
    },
  ],
  jwks: JSON.parse(process.env.JWKS),
  claims: { openid: ["sub", "email", "email_verified", "groups", "tenant"] },
  conformIdTokenClaims: false,
  pkce: { required: () => false },
  ttl: { IdToken: Number(process.env.SECONDS || 600) },
  features: { devInteractions: { enabled: true } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...accounts[id] }) }),
});
provider.listen(port, "127.0.0.1", () => console.log("ready"));
