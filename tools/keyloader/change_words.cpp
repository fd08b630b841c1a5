// Comparing the two states of an audit entry. Called by `audit list` and `usage statement`.
// Must never leave out a field because it is not understood: what is not known is shown as it is.
#include "change_words.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "limit_text.hpp"
#include "output.hpp"

namespace keyloader {
namespace {

// Of every object, and of no interest when it is new.
constexpr std::array<std::string_view, 7> kSelf = {"id",     "family", "created",    "digest_method",
                                                   "prefix", "hint",   "registry_id"};

bool is_nothing(const Json& value) {
  return value.is_null() || value == false || value == "" || (value.is_structured() && value.empty());
}

std::string words(const Json& value) {
  if (value.is_null() || value == "" || (value.is_structured() && value.empty())) {
    return "none";
  }
  if (value.is_boolean()) {
    return value.get<bool>() ? "yes" : "no";
  }
  if (value.is_string()) {
    return value.get<std::string>();
  }
  const bool is_list =
      value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& each) { return each.is_string(); });
  return is_list ? fmt::format("{}", fmt::join(value.get<Texts>(), " ")) : json_text(value);
}

// A burst that follows from the rate is not worth a word.
std::string limit_words(const Json& json) {
  const auto limit = limit_from(json);
  if (!limit) {
    return json_text(json);
  }
  std::string text = limit_text(*limit);
  if (limit->kind == apikey::LimitKind::rate && !limit->burst) {
    const std::string burst = fmt::format(" burst {}", burst_of(*limit));
    text.erase(text.find(burst), burst.size());
  }
  return text;
}

class Comparison {
 public:
  // Of a named part: a field, a limit, a value of meta.
  void add(const std::string& name, const std::string& before, const std::string& after, bool was_nothing) {
    text_ += fmt::format("{}{} {}{}", text_.empty() ? "" : ", ", name, was_nothing ? "" : before + " → ", after);
  }

  // By name; those that are the same are left out.
  void add_limits(const Json& before, const Json& after) {
    const auto limit = [](const Json& limits, const std::string& name) {
      const auto found = std::find_if(limits.begin(), limits.end(),
                                      [&](const Json& each) { return each.value("name", std::string{}) == name; });
      return found == limits.end() ? std::string{} : limit_words(*found);
    };
    std::set<std::string> names;
    for (const Json* const limits : {&before, &after}) {
      for (const Json& each : *limits) {
        names.insert(each.value("name", std::string{}));
      }
    }
    for (const std::string& name : names) {
      const std::string was = limit(before, name);
      const std::string is = limit(after, name);
      if (was != is) {
        add(name, was, is.empty() ? "none" : is, was.empty());
      }
    }
  }

  void add_object(const std::string& field, const Json& before, const Json& after) {
    Json all = before.is_object() ? before : Json::object();
    all.update(after.is_object() ? after : Json::object());
    for (const auto& [name, value] : all.items()) {
      const Json was = field_of(before, name);
      const Json is = field_of(after, name);
      if (was != is) {
        add(fmt::format("{}.{}", field, name), words(was), words(is), is_nothing(was));
      }
    }
  }

  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_;
};

bool are_limits(const Json& value) {
  return value.is_array() && std::all_of(value.begin(), value.end(), [](const Json& each) { return each.is_object(); });
}

std::string label_of(const std::string& name) {
  std::string label = name == "revoked_reason" ? "reason" : name;
  std::replace(label.begin(), label.end(), '_', ' ');
  return label;
}

}  // namespace

std::string change_words(const AuditEntry& entry, std::span<const std::string_view> only) {
  const bool is_deletion = entry.action.ends_with(".delete");
  if (is_deletion || !entry.after.is_object()) {
    AuditEntry made = entry;
    made.action.clear();
    made.after = entry.before;
    made.before = nullptr;
    std::string was = made.after.is_object() ? change_words(made, only) : std::string{};
    was = was.empty() ? was : "was " + was;
    const Json reason = field_of(entry.after, "reason");
    return reason.is_string() ? fmt::format("{}{}reason {}", was, was.empty() ? "" : ", ", words(reason)) : was;
  }
  const bool is_new = !entry.before.is_object();
  Comparison comparison;
  for (const auto& [name, after] : entry.after.items()) {
    const Json before = is_new ? Json{} : entry.before.value(name, Json{});
    const bool is_asked_for = only.empty() || std::find(only.begin(), only.end(), name) != only.end();
    const bool is_self = is_new && (std::find(kSelf.begin(), kSelf.end(), name) != kSelf.end() ||
                                    (name == "name" && after == entry.object));
    if (!is_asked_for || is_self || before == after || (is_nothing(before) && is_nothing(after))) {
      continue;
    }
    if (name == "limits" && (before.is_null() || are_limits(before)) && are_limits(after)) {
      comparison.add_limits(before.is_null() ? Json::array() : before, after);
    } else if (before.is_object() || after.is_object()) {
      comparison.add_object(label_of(name), before, after);
    } else {
      const bool was_nothing = before.is_null() || before == "" || (before.is_structured() && before.empty());
      comparison.add(label_of(name), words(before), words(after), was_nothing);
    }
  }
  const Json quota = entry.after.value("quota", Json{});
  return quota.is_string() && !comparison.text().empty()
             ? fmt::format("{}: {}", quota.get<std::string>(), comparison.text())
             : comparison.text();
}

}  // namespace keyloader
