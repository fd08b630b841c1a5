// Owners, plans and roles by the names that people write, and what they may have meant by one that is not there: a
// mistyped name must not read as "it has none", nor be made a second time. Called by every command that takes a name.
#pragma once

#include <string>

#include "registry/registry.hpp"

namespace keyloader {

// "there is no owner "Web"; did you mean "web"? `keyloader owner list` shows them all". `hint`: what to do instead.
[[nodiscard]] std::string no_owner(Registry& registry, const std::string& name, std::string_view hint = {});
[[nodiscard]] std::string no_plan(Registry& registry, const std::string& name, std::string_view hint = {});
[[nodiscard]] std::string no_role(Registry& registry, const std::string& name, std::string_view hint = {});

// Each throws Failure with that sentence for one that is not there.
[[nodiscard]] Owner require_owner(Registry& registry, const std::string& name);
[[nodiscard]] Plan require_plan(Registry& registry, const std::string& name);
[[nodiscard]] Role require_role(Registry& registry, const std::string& name);

// Those that owners are of, sorted, each once.
[[nodiscard]] Texts teams_of(Registry& registry);

// The suspended owners: what nginx refuses all keys of.
class SuspendedOwners {
 public:
  SuspendedOwners(Registry& registry, Seconds now);
  [[nodiscard]] bool holds(const std::string& owner) const;
  // As state_of(), but `suspended` for a key whose owner is.
  [[nodiscard]] std::string_view state_of(const Key& key) const;

 private:
  Texts names_;  // sorted
  Seconds now_;
};

}  // namespace keyloader
