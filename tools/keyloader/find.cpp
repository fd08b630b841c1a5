// keyloader find: which key is this? The key comes from standard input, because arguments are visible to everybody.
// Must never print what it read.
#include <fmt/format.h>

#include "apikey/key_form.hpp"
#include "secret.hpp"
#include "session.hpp"

namespace keyloader {
namespace {

std::optional<Key> find_key(Registry& registry, DigestMethods& methods, std::string_view secret) {
  for (const std::string& method : methods.names()) {
    auto key = registry.key(methods.digest(method, secret));
    if (key && key->method == method) {
      return key;
    }
  }
  return std::nullopt;
}

void find(const Session& session) {
  const DataDir directory = session.dir();
  const auto registry = directory.open_registry();
  DigestMethods methods(directory, *registry);
  const SecretText secret = read_secret_from_stdin();
  const std::optional<Key> key = find_key(*registry, methods, secret.view());
  if (!key) {
    apikey::KeyParts parts;
    const bool is_mistyped = apikey::has_own_form(secret.view()) && !apikey::parse_key(secret.view(), parts);
    throw Failure(is_mistyped ? "the checksum of this key is wrong, so it was mistyped or changed; no registry knows it"
                              : "the registry does not know this key");
  }
  const std::string_view state = state_of(*key, wall_clock());
  Json json = to_json(*key);
  json["state"] = state;
  session.report(fmt::format("{} of {}, {}, {}{}{}", text_of(key->id), key->owner, key->env, state,
                             key->name.empty() ? "" : ": ", key->name),
                 json);
}

}  // namespace

void add_find_command(Command& app, Session& session) {
  Command command = app.add("find", "Tell which key is given on standard input");
  command.footer("  keyloader find < leaked.txt\n  xclip -o | keyloader find --json | jq -r .id");
  command.read([&session] { find(session); });
}

}  // namespace keyloader
