// Looks up the texts of a recognised key.
// Called when something shows them: a variable, a refusal's log line, apikey_verify, apikey_whoami. Never decides.
#include "ngx_http_apikey_identity.hpp"

#include <algorithm>

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

bool detach(ngx_pool_t* pool, std::string_view& text) noexcept {
  const ngx_str_t copy = copy_to_pool(pool, text);
  if (copy.len != text.size()) {
    return false;
  }
  text = view(copy);
  return true;
}

}  // namespace

void look_up(ngx_pool_t* pool, const Snapshot& snapshot, const Recognition& known, Identity& identity) noexcept {
  if (identity.is_looked_up) {
    return;
  }
  identity.is_looked_up = true;
  const auto id = key_id_text(known.record.id);
  std::copy(id.begin(), id.end(), identity.id);
  identity.name = string_row(snapshot, known.record.name);
  identity.owner = string_row(snapshot, known.owner.name);
  identity.plan = plan_name(snapshot, known.record.plan);
  identity.env = known.env;
  identity.meta = string_row(snapshot, known.record.meta);
  identity.scopes = scope_list(pool, snapshot, known.record.scopes);
}

bool detach_identity(ngx_pool_t* pool, Identity& identity) noexcept {
  Identity copy = identity;
  for (std::string_view* text : {&copy.name, &copy.owner, &copy.plan, &copy.env, &copy.meta}) {
    if (!detach(pool, *text)) {
      return false;
    }
  }
  identity = copy;
  return true;
}

}  // namespace apikey::nginx
