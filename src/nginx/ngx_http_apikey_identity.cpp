// Looks up the texts of a recognised key.
// Called when something shows them: a variable, a refusal's log line, apikey_verify, apikey_whoami. Never decides.
#include "ngx_http_apikey_identity.hpp"

#include "ngx_http_apikey_text.hpp"

namespace apikey::nginx {
namespace {

std::string_view string_row(const Snapshot& snapshot, std::uint32_t number) noexcept {
  std::string_view text;
  return number != 0 && snapshot.string(number, text) ? text : std::string_view();
}

std::string_view plan_name(const Snapshot& snapshot, std::uint32_t number) noexcept {
  PlanRow plan;
  return number != 0 && snapshot.plan(number, plan) ? string_row(snapshot, plan.name) : std::string_view();
}

std::string_view scope_list(ngx_pool_t* pool, const Snapshot& snapshot, std::uint32_t number) noexcept {
  ScopeSet scopes;
  if (number == 0 || !snapshot.scopes(number, scopes)) {
    return {};
  }
  Text text(pool);
  for (auto it = scopes.begin(); it != scopes.end(); ++it) {
    text.add(text.str().len == 0 ? "" : " ");
    text.add(*it);
  }
  return text.ok() ? view(text.str()) : std::string_view();
}

bool copy(ngx_pool_t* pool, std::string_view text, std::string_view& to) noexcept {
  const ngx_str_t copied = copy_to_pool(pool, text);
  to = view(copied);
  return copied.len == text.size();
}

}  // namespace

bool look_up(ngx_pool_t* pool, const Snapshot& snapshot, const Recognition& known, Identity& identity) noexcept {
  if (identity.is_looked_up) {
    return true;
  }
  const auto id = key_id_text(known.record.id);
  Identity found;
  found.scopes = scope_list(pool, snapshot, known.record.scopes);
  found.is_looked_up =
      copy(pool, {id.data(), id.size()}, found.id) && copy(pool, string_row(snapshot, known.record.name), found.name) &&
      copy(pool, string_row(snapshot, known.owner.name), found.owner) &&
      copy(pool, plan_name(snapshot, known.record.plan), found.plan) && copy(pool, known.env, found.env) &&
      copy(pool, string_row(snapshot, known.record.meta), found.meta);
  if (found.is_looked_up) {
    identity = found;
  }
  return found.is_looked_up;
}

}  // namespace apikey::nginx
