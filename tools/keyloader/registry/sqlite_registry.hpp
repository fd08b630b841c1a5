// The Registry on SQLite: one file, registry.db, for a single machine.
// Made by open_registry() and create_registry() in the commands; everything else knows only Registry.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "registry/registry.hpp"

namespace keyloader {

// Opens an existing registry and brings its schema up to date.
[[nodiscard]] std::unique_ptr<Registry> open_sqlite_registry(const std::filesystem::path& file);

// Makes a new registry with a random id and the plan `default`; `fill` adds to the same transaction. A file that was
// begun and never finished is taken over; a finished one is a Failure.
[[nodiscard]] std::unique_ptr<Registry> create_sqlite_registry(const std::filesystem::path& file,
                                                               const std::function<void(Change&)>& fill);

}  // namespace keyloader
