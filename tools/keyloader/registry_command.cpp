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
  return {{"registry_id", hex(info.id)},   {"home", to_json(info.home)},    {"at_home", is_at_home(info.home, here)},
          {"generation", info.generation}, {"schema", info.schema_version}, {"created", time_json(info.created)},
          {"prefix", prefix_of(info)}};
}

void show(const Session& session) {
  const auto registry = session.dir().open_registry();
  const RegistryInfo info = registry->info();
  const Home here = registry->here();
  std::string text = fmt::format(
      "id:         {}\nbelongs to: {}\ngeneration: {}\nkeys:       {}\nprefix:     {}\nschema:     {}\ncreated:    {}",
      hex(info.id), home_text(info.home), info.generation, registry->key_count(), prefix_of(info), info.schema_version,
      time_text(info.created));
  if (!is_at_home(info.home, here)) {
    text += fmt::format("\n{}", elsewhere_text(info.home, here));
  }
  Json json = to_json(info, here);
  json["keys"] = registry->key_count();
  session.report(text, json);
}

// No snapshot has it, so nothing is published.
void set(const Session& session, const SetOptions& options) {
  check_reason(options.reason);
  check_prefix(options.prefix, options.is_sure);
  const auto registry = session.dir().open_registry();
  const Home here = registry->here();
  const auto change = registry->begin_change();
  change->because(options.reason);
  if (registry->info().prefix == options.prefix) {
    session.report(fmt::format("new keys begin with {} already", options.prefix), to_json(registry->info(), here));
    return;
  }
  change->set_prefix(options.prefix);
  const std::string sentence = fmt::format("new keys begin with {} from now on", options.prefix);
  const Json json = to_json(registry->info(), here);
  if (options.delivery.is_dry_run) {
    report(session, sentence, json, dry_run());
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
  const auto registry = session.dir().open_registry();
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
  Command edit = group.add("set", "Choose how new keys begin");
  edit.required_option("--prefix", settings->prefix, "PREFIX", "2-16 of a-z 0-9, such as the name of your company");
  edit.flag("--yes", settings->is_sure, "Take a prefix that keys of others are known by");
  edit.option("--reason", settings->reason, "TEXT", "Kept in the audit");
  edit.tries(settings->delivery);
  edit.footer("Keys that are there stay as they are.\n\n  keyloader registry set --prefix acme");
  edit.run([&session, settings] { set(session, *settings); });

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
  take.run([&session, options] { adopt(session, *options); });
}

}  // namespace keyloader
