// What can be said of a key, on the command line or in an import file, and how it gets into a Key.
// Called by `key create`, `key set` and import, so that all three take and refuse the same.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "command.hpp"
#include "limits.hpp"
#include "registry/registry.hpp"
#include "values.hpp"

namespace keyloader {

// Absent keeps, a value sets, `none` clears. A list that is named replaces the old one.
struct KeyFields {
  std::optional<std::string> name;
  std::optional<std::string> ref;
  std::optional<std::string> plan;
  std::optional<std::string> env;
  std::optional<std::string> expires;
  std::optional<std::string> not_before;
  LimitOptions limits;
  Texts scopes;
  Texts roles;
  Texts allow_ip;
  Texts allow_origin;
  Texts allow_method;
  Texts allow_host;
  Texts meta;
  bool requires_tls = false;
  bool forgets_tls = false;

  [[nodiscard]] bool names_nothing() const;
};

// Throws UsageError for what is badly written, Failure for a plan or role that is not there.
void apply(const KeyFields& fields, Registry& registry, Key& key);

// Another key of the owner with this one's ref.
[[nodiscard]] std::optional<Key> key_with_ref_of(Registry& registry, const Key& key);
// What is said of it. `ref`: how the ref is called in the sentence.
[[nodiscard]] std::string ref_taken(const Key& other, std::string_view ref);
// Throws Failure when there is one.
void check_ref(Registry& registry, const Key& key);

// Says so when another key of the owner has the name that `fields` gives.
void warn_of_name(Registry& registry, const Key& key, const KeyFields& fields);

// The options that `key create` and `key set` share. `is_new`: those that change what a key has are left out.
void add_key_fields(Command& command, KeyFields& fields, bool is_new);

}  // namespace keyloader
