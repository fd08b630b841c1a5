// The comparison behind Access.
#include "registry/access.hpp"

#include <fmt/format.h>

#include <array>
#include <functional>

#include "apikey/scope_set.hpp"

namespace keyloader {
namespace {

// Lists that allow: an empty one allows everything.
struct Condition {
  std::string_view field;
  std::string_view what;
  std::string_view option;
};
constexpr std::array<Condition, 4> kConditions{{{"allow_ip", "address", "--allow-ip"},
                                                {"allow_origin", "origin", "--allow-origin"},
                                                {"allow_method", "method", "--allow-method"},
                                                {"allow_host", "host", "--allow-host"}}};

// 0 is "for ever" for the end of a validity or of a suspension.
bool is_later(Seconds a, Seconds b) { return b != 0 && (a == 0 || a > b); }

}  // namespace

bool holds_role(const Texts& admin_scopes, std::string_view role) {
  static constexpr std::array<std::string_view, 5> ladder = {"view", "support", "issue", "admin", "*"};
  const auto* const from = std::find(ladder.begin(), ladder.end(), role);
  const auto holds = [&](std::string_view each) {
    const std::string scope = fmt::format("apikey:{}", each);
    return std::any_of(admin_scopes.begin(), admin_scopes.end(),
                       [&](const std::string& held) { return apikey::scope_grants(held, scope); });
  };
  return from == ladder.end() ? holds(role) : std::any_of(from, ladder.end(), holds);
}

bool grants_all(const Key& key) { return key.may_grant.empty() && holds_role(key.admin_scopes, "admin"); }

Access::Access(const Fields& now, const Fields& then) : now_(now), then_(then) {
  add_lists();
  add_times();
  add_administrator();
  if (flag_of(now, "require_tls") && !flag_of(then, "require_tls")) {
    regained_.push_back({"without TLS", "--no-require-tls"});
  }
}

bool Access::ends_revocation() const { return time_of(now_, "revoked") != 0 && time_of(then_, "revoked") == 0; }

bool Access::ends_suspension() const {
  return flag_of(now_, "suspended") && (!flag_of(then_, "suspended") ||
                                        is_later(time_of(now_, "suspended_until"), time_of(then_, "suspended_until")));
}

// `all`: what the list held; `set` takes a list as a whole.
void Access::add(std::string_view what, std::string_view option, const Texts& again, const Texts& all,
                 bool is_administrators) {
  std::string words;
  for (const std::string& value : all) {
    words += fmt::format("{}{} {}", words.empty() ? "" : " ", option, value);
  }
  for (const std::string& value : again) {
    regained_.push_back({fmt::format("{} {}", what, value), words, is_administrators});
    words.clear();
  }
}

void Access::add_lists() {
  const Texts scopes = texts_of(then_, "scopes");
  add("scope", "--scope",
      gained(scopes, texts_of(now_, "scopes"),
             [](const std::string& held, const std::string& one) { return apikey::scope_grants(held, one); }),
      scopes);
  const Texts roles = texts_of(then_, "roles");
  add("role", "--role", gained(roles, texts_of(now_, "roles"), std::equal_to<>{}), roles);
  for (const auto& [field, what, option] : kConditions) {
    const Texts now = texts_of(now_, std::string{field});
    const Texts then = texts_of(then_, std::string{field});
    if (!now.empty() && then.empty()) {
      regained_.push_back({fmt::format("every {}", what), fmt::format("{} none", option)});
    } else if (!now.empty()) {
      add(what, option, gained(then, now, std::equal_to<>{}), then);
    }
  }
}

void Access::add_times() {
  const Seconds expires = time_of(then_, "expires");
  if (is_later(expires, time_of(now_, "expires"))) {
    const std::string end = expires == 0 ? "none" : time_text(expires);
    regained_.push_back({expires == 0 ? "no end" : "the end " + end, "--expires " + end});
  }
  const Seconds begin = time_of(then_, "not_before");
  if (begin < time_of(now_, "not_before")) {
    const std::string text = begin == 0 ? "none" : time_text(begin);
    regained_.push_back({begin == 0 ? "no begin" : "the begin " + text, "--not-before " + text});
  }
}

// The rights of an administrator's key. Without teams it is for all; without may_grant `admin` gives all scopes, the
// others none.
void Access::add_administrator() {
  const Texts held = texts_of(now_, "admin_scopes");
  const Texts roles = texts_of(then_, "admin_scopes");
  add("scope", "",
      gained(roles, held,
             [&](const std::string& /*each*/, const std::string& one) {
               return holds_role(held, one.substr(one.find(':') + 1));
             }),
      {}, true);
  if (roles.empty()) {
    return;
  }
  const Texts teams = texts_of(then_, "teams");
  const Texts teams_now = texts_of(now_, "teams");
  if (!teams_now.empty() && teams.empty()) {
    regained_.push_back({"every team", "--team none", true});
  } else if (!teams_now.empty()) {
    add("team", "--team", gained(teams, teams_now, std::equal_to<>{}), teams, true);
  }
  const Texts grants = texts_of(then_, "may_grant");
  const Texts grants_now = texts_of(now_, "may_grant");
  if (grants.empty() && !grants_now.empty() && holds_role(roles, "admin")) {
    regained_.push_back({"the right to give every scope", "--may-grant none", true});
  } else if (!grants_now.empty() || !holds_role(held, "admin")) {
    add("the right to give", "--may-grant",
        gained(grants, grants_now,
               [](const std::string& each, const std::string& one) { return apikey::scope_grants(each, one); }),
        grants, true);
  }
}

}  // namespace keyloader
