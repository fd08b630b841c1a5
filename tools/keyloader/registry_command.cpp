// keyloader registry: which registry this is, where it belongs, and making a copy of it the registry.
#include <fmt/format.h>

#include "delivery.hpp"
#include "prefix.hpp"
#include "session.hpp"
#include "values.hpp"

namespace keyloader {
namespace {

struct SetOptions {
  std::string prefix;
  bool is_sure = false;
  std::string name;
  std::string reason;
  DeliveryOptions delivery;
};

struct AdoptOptions {
  std::string reason;
  DeliveryOptions delivery;
};

std::string home_text(const Home& home) {
  return home.directory.empty() ? "nowhere yet: to where it is changed next"
                                : fmt::format("{} on {}", home.directory, home.host);
}

Json to_json(const Home& home) {
  return home.directory.empty() ? Json(nullptr) : Json{{"directory", home.directory}, {"host", home.host}};
}

Json to_json(const RegistryInfo& info, const Home& here) {
  return {{"registry_id", hex(info.id)},
          {"home", to_json(info.home)},
          {"at_home", is_at_home(info.home, here)},
          {"generation", info.generation},
          {"schema", info.schema_version},
          {"created", time_json(info.created)},
          {"prefix", prefix_of(info)},
          {"name", info.name}};
}

void show(const Session& session) {
  const auto registry = session.open_registry();
  const RegistryInfo info = registry->info();
  const Home here = registry->here();
  std::string text = fmt::format(
      "id:         {}\nname:       {}\nbelongs to: {}\ngeneration: {}\nkeys:       {}\nprefix:     {}\nschema:     "
      "{}\ncreated:    {}",
      hex(info.id), info.name, home_text(info.home), info.generation, registry->key_count(), prefix_of(info),
      info.schema_version, time_text(info.created));
  if (!is_at_home(info.home, here)) {
    text += fmt::format("\n{}", elsewhere_text(info.home, here));
  }
  Json json = to_json(info, here);
  json["keys"] = registry->key_count();
  session.report(text, json);
}

void check(const SetOptions& options) {
  check(options.delivery);
  check_reason(options.reason);
  if (options.prefix.empty() && options.name.empty()) {
    throw UsageError("nothing to set; give --prefix, --name or both");
  }
  if (!options.prefix.empty()) {
    check_prefix(options.prefix, options.is_sure);
  }
  if (!options.name.empty() && !apikey::is_store_name(options.name)) {
    throw UsageError(fmt::format("\"{}\" is not a name for a store: write 1 to 32 of a-z 0-9 _ -", options.name));
  }
}

// The name stands in snapshots, the prefix does not: where only that changes, nothing is published.
void set(const Session& session, const SetOptions& options) {
  check(options);
  const auto registry = session.open_registry();
  const Home here = registry->here();
  const auto change = registry->begin_change();
  change->because(options.reason);
  const RegistryInfo before = registry->info();
  const bool has_prefix = !options.prefix.empty() && before.prefix != options.prefix;
  const bool has_name = !options.name.empty() && before.name != options.name;
  Texts sentences;
  if (!options.prefix.empty()) {
    sentences.push_back(
        fmt::format("new keys begin with {} {}", options.prefix, has_prefix ? "from now on" : "already"));
  }
  if (!options.name.empty()) {
    sentences.push_back(fmt::format("the store is called {} {}", options.name, has_name ? "now" : "already"));
  }
  if (has_prefix) {
    warn_of_prefix(options.prefix);
    change->set_prefix(options.prefix);
  }
  if (has_name) {
    change->rename_store(options.name);
  }
  const std::string sentence = fmt::format("{}", fmt::join(sentences, "\n"));
  const Json json = to_json(registry->info(), here);
  if (has_name || options.delivery.is_dry_run) {
    report(session, sentence, json, deliver(session, *registry, *change, options.delivery));
    return;
  }
  change->commit();
  session.report(sentence, json);
}

void adopt(const Session& session, const AdoptOptions& options) {
  check(options.delivery);
  if (options.reason.empty()) {
    throw UsageError("say why with --reason: the audit keeps it");
  }
  check_reason(options.reason);
  const auto registry = session.open_registry();
  const Home home = registry->info().home;
  const Home here = registry->here();
  if (is_at_home(home, here)) {
    report(session, fmt::format("registry {} belongs here already; it stays as it is", hex(registry->info().id)),
           to_json(registry->info(), here), deliver_nothing(session, *registry, options.delivery));
    return;
  }
  const auto change = registry->begin_adoption(options.reason);
  report(session,
         fmt::format("registry {} belongs to {} now, no longer to {}", hex(registry->info().id), home_text(here),
                     home_text(home)),
         to_json(registry->info(), here), deliver(session, *registry, *change, options.delivery));
}

}  // namespace

void add_registry_commands(Command& app, Session& session) {
  Command group = app.add_group("registry", "Which registry this is, and where it belongs");
  Command one = group.add("show", "Its id, its home, its generation");
  one.footer("  keyloader registry show --json");
  one.read([&session] { show(session); });

  auto settings = std::make_shared<SetOptions>();
  Command edit = group.add("set", "Choose how new keys begin, and what the store is called");
  edit.option("--prefix", settings->prefix, "PREFIX", "2-16 of a-z 0-9, such as the name of your company");
  edit.flag("--yes", settings->is_sure, "Allow a prefix that another vendor uses");
  edit.option("--name", settings->name, "NAME", "Of the store, in every snapshot: 1-32 of a-z 0-9 _ -");
  edit.option("--reason", settings->reason, "TEXT", "Kept in the audit");
  edit.tries(settings->delivery);
  edit.delivers(settings->delivery);
  edit.footer(
      "Keys that are there stay as they are. The name is for people; nginx goes by the registry's id.\n\n"
      "  keyloader registry set --prefix acme --name production");
  edit.run_on_machine(session, [&session, settings] { set(session, *settings); });

  auto options = std::make_shared<AdoptOptions>();
  Command take = group.add("adopt", "Make a copy of a registry, or one that was moved, the registry");
  take.option("--reason", options->reason, "TEXT", "Kept in the audit; required");
  take.tries(options->delivery);
  take.delivers(options->delivery);
  take.footer(
      "A registry knows its directory and its machine. Elsewhere it can be read, and changes are refused until it is\n"
      "adopted, once, because two of one registry would both give out the same generations. Stop using the other one\n"
      "first. The next generation is published at once. Where a newer generation is known here, the copy is an older\n"
      "one: publishing says so, and nothing that was revoked since becomes good again.\n\n"
      "  keyloader registry adopt --reason 'moved to web-2'");
  take.run_on_machine(session, [&session, options] { adopt(session, *options); });
}

}  // namespace keyloader
